// Asks the kernel for news by raising a number; the answer comes back as ordinary updates.
export default {
  render({ model, el }) {
    el.dataset.pane = "clock";
    el.style.display = "none";
    const timer = setInterval(() => {
      if (document.hidden) return;
      model.set("ticks", model.get("ticks") + 1);
      model.save_changes();
    }, model.get("period"));
    return () => clearInterval(timer);
  },
};
