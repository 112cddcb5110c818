// Says after a while without a beat that no kernel answers: a widget looks alive when its kernel is gone.
function watchBeat(model, notice, signal) {
  let last = performance.now();
  const beat = () => {
    last = performance.now();
    if (!notice.hidden) notice.hidden = true;
  };
  const look = () => {
    const closed = model.get("phase") === "closed";
    const silent = (performance.now() - last) / 1000 > model.get("gone_after");
    if (silent && !closed && notice.hidden) notice.hidden = false;
  };
  notice.hidden = true;
  model.on("change:beat", beat);
  const timer = setInterval(look, 500);
  signal.addEventListener("abort", () => {
    clearInterval(timer);
    model.off("change:beat", beat);
  });
}
