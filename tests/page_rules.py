"""What must hold of a page in a browser: each rule is a sentence where it is broken."""

from collections.abc import Iterator

from playwright.sync_api import Page

# Roles of what a reader operates or looks at: a screen reader says their names.
NAMED_ROLES = {
    "button",
    "checkbox",
    "combobox",
    "DisclosureTriangle",
    "image",
    "link",
    "searchbox",
    "slider",
    "textbox",
}
OVERFLOWS = """
() => {
  const root = document.documentElement;
  return root.scrollWidth > root.clientWidth
    ? [`the page is ${root.scrollWidth} px wide in a window of ${root.clientWidth}`]
    : [];
}
"""
WITHOUT_ALT = """
() => [...document.images].filter((image) => !image.alt.trim())
  .map((image) => `a picture without a text: ${image.src.slice(-60)}`)
"""
NOT_TYPESET = """
() => [...document.querySelectorAll(".math")]
  .filter((node) => !node.querySelector("mjx-container") ||
    node.querySelector("[data-mml-node=merror]"))
  .map((node) => `maths not typeset: ${node.textContent.slice(0, 60)}`)
"""
# Contrast as WCAG 2.2 defines it (relative luminance; 4.5, or 3 for large text).
PALE = """
() => {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const context = canvas.getContext("2d", {willReadFrequently: true});
  const read = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return {rgb: [r, g, b], alpha: a / 255};
  };
  const over = (top, under) => top.rgb.map(
    (part, place) => part * top.alpha + under[place] * (1 - top.alpha));
  const ground = (node) => {
    if (!node) return [255, 255, 255];
    const own = read(getComputedStyle(node).backgroundColor);
    return own.alpha === 1 ? own.rgb : over(own, ground(node.parentElement));
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((part) => part / 255).map((part) =>
      part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = new Set();
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement;
    if (!text.data.trim()) continue;
    if (!node.checkVisibility({visibilityProperty: true})) continue;
    if (node.closest("script, style, noscript, svg, mjx-assistive-mml")) continue;
    const style = getComputedStyle(node);
    const under = ground(node);
    const lights = [luminance(over(read(style.color), under)), luminance(under)];
    const ratio = (Math.max(...lights) + 0.05) / (Math.min(...lights) + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    if (ratio < (large ? 3 : 4.5)) found.add(
      `contrast ${ratio.toFixed(2)}: ${node.tagName}.${node.className} ` +
      text.data.trim().slice(0, 30));
  }
  return [...found];
}
"""


def breaches(page: Page) -> Iterator[str]:
    """Yield what is wrong with the page: width, pictures, maths, names, contrast."""
    for rule in (OVERFLOWS, WITHOUT_ALT, NOT_TYPESET, PALE):
        yield from page.evaluate(rule)
    yield from _nameless(page)


def _nameless(page: Page) -> Iterator[str]:
    """Yield what Chromium's own accessibility tree has no name for."""
    session = page.context.new_cdp_session(page)
    for node in session.send("Accessibility.getFullAXTree")["nodes"]:
        role = node.get("role", {}).get("value")
        name = node.get("name", {}).get("value", "")
        if role in NAMED_ROLES and not node["ignored"] and not name.strip():
            described = session.send(
                "DOM.describeNode", {"backendNodeId": node["backendDOMNodeId"]}
            )["node"]
            about = described["nodeName"], described.get("attributes")
            yield f"a {role} without a name: {about}"
