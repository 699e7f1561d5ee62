// The book: a formula and the sign behind it, such as a full stop, stay on one line.
"use strict";

function holdTogether(formula) {
  const after = formula.nextSibling;
  const sign = after?.nodeType === Node.TEXT_NODE && after.data.match(/^[.,;:?!)%]+/);
  if (!sign) return;
  after.splitText(sign[0].length);
  const box = document.createElement("span");
  box.style.whiteSpace = "nowrap";
  formula.before(box);
  box.append(formula, after);
}

window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  document.querySelectorAll("span.math").forEach(holdTogether);
});
