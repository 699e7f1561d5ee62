// What is wrong with the slide that is shown: a list of sentences, empty where all is well.
//
// All fragments are shown. Sizes are those on the screen: zoom and the deck's scale count.
() => {
  const LEAST = 18;
  const faults = [];
  const slide = Reveal.getCurrentSlide();
  slide.querySelectorAll(".fragment").forEach((one) => one.classList.add("visible"));
  const scale = Reveal.getScale();
  const [width, height] = [1280 * scale, 720 * scale];
  const edge = document.querySelector(".slides").getBoundingClientRect();
  const named = (text) => JSON.stringify(text.trim().slice(0, 30));

  const check = (what, box) => {
    if (box.width === 0 || box.height === 0) return;
    const [left, top] = [box.left - edge.left, box.top - edge.top];
    const out = [-left, -top, left + box.width - width, top + box.height - height];
    if (Math.max(...out) > 0.5) {
      faults.push(`${what} reaches ${Math.round(Math.max(...out))} px beyond the slide`);
    }
  };
  const seen = (element) => {
    const style = getComputedStyle(element);
    // One pixel that is clipped holds words for those who listen.
    const isForListeners = style.clipPath === "inset(50%)" || style.clip !== "auto";
    return (
      style.visibility !== "hidden" &&
      element.getClientRects().length > 0 &&
      !isForListeners
    );
  };
  const checkText = (node) => {
    const holder = node.parentElement;
    if (!node.data.trim() || !seen(holder) || holder.closest("script, style")) return;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) check(named(node.data), box);
    const zoom = holder.currentCSSZoom ?? 1;
    const size = parseFloat(getComputedStyle(holder).fontSize) * zoom * scale;
    if (size < LEAST - 0.01) faults.push(`${named(node.data)} has ${size.toFixed(1)} px`);
  };
  const checkElement = (element) => {
    if (!seen(element)) return;
    if (element.matches("img, svg, table, pre, button, input, select")) {
      check(element.tagName, element.getBoundingClientRect());
    }
    const style = getComputedStyle(element);
    const hides = style.overflowX !== "visible" || style.overflowY !== "visible";
    const hidden = Math.max(
      element.scrollWidth - element.clientWidth,
      element.scrollHeight - element.clientHeight,
    );
    if (hides && hidden > 1 && !element.matches("svg, svg *, input, select")) {
      faults.push(`${element.tagName} ${named(element.textContent)} is cut off`);
    }
    // The type of a picture, 12 points at 110 dots an inch, is 18.3 pixels high.
    if (element.matches("img")) {
      const shown = element.getBoundingClientRect().width / element.naturalWidth;
      if (shown < 0.98) {
        const share = `${shown.toFixed(2)} of its size`;
        faults.push(`picture ${named(element.alt)} is shown at ${share}`);
      }
      if (!element.alt) faults.push("a picture has no alt text");
    }
  };
  const walk = (root) => {
    for (const node of root.childNodes) {
      if (node.nodeType === Node.TEXT_NODE) checkText(node);
      if (node.nodeType !== Node.ELEMENT_NODE) continue;
      if (node.matches("aside.notes, mjx-assistive-mml")) continue;
      checkElement(node);
      walk(node);
      if (node.shadowRoot) walk(node.shadowRoot);
    }
  };
  walk(slide);
  walk(document.querySelector(".slide-number"));
  if (!slide.textContent.trim() && !slide.querySelector("img")) faults.push("is empty");
  return faults;
}
