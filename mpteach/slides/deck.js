// Lays the cells out on slides of 1280 by 720, then starts the show.
//
// A group of cells, from one marked "slide" to the next, is one slide if it fits. What
// does not fit goes on to the next slide: a whole cell where one is free, else its parts,
// else half of its lines, rows or points. Each slide takes the largest type that fits;
// code and outputs take their own, so that one long line makes nothing else small.
"use strict";

(() => {
  const ROOM = { width: 1200, height: 668 };
  const LEVELS = ["giant", "huge", "large", "middle", "close", "small"];
  const [GIANT, MIDDLE, SMALL] = [0, 3, 5];
  // A letter of code is 0.603 em wide; a block has paddings and an edge of 32 pixels.
  const LINE = (ROOM.width - 32) / 0.603;
  const LEAST_CODE = 18;
  // A picture's own type is 18 pixels: it may grow, and shrinks only where it must.
  const MOST_GROWTH = 1.35;
  const WHOLE = ".rich:has(script)";
  // The bit explorer's own sheet is made for readers, who sit closer.
  const EXPLORER = `
    .root { padding: 0 0.2em; }
    .hint { display: none; }
    .controls span, .title, dt { font-size: 0.86em; }
    caption, thead th { font-size: 0.94em; }
    .details { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); }
    dl { gap: 0.15em; }
    .formula p:first-child:not(:last-child) { font-size: 0.92em; }
    sup { font-size: 0.84em; }
  `;

  let bench;

  function element(name, className, text = "") {
    const made = document.createElement(name);
    made.className = className;
    made.textContent = text;
    return made;
  }

  class Page {
    constructor(heading) {
      this.section = element("section", "page");
      this.body = element("div", "body");
      if (heading) {
        const running = element("p", "running");
        running.append(...heading.cloneNode(true).childNodes);
        this.section.append(running);
      }
      this.section.append(this.body);
      bench.replaceChildren(this.section);
    }

    get empty() {
      return this.shown.length === 0;
    }

    get shown() {
      return [...this.body.children].filter((one) => !one.matches("aside"));
    }

    // The last node, if its last sentence ends in a colon: what follows belongs to it.
    get lead() {
      const last = this.shown.at(-1);
      const inner = [...(last?.children ?? [])].filter((one) => !one.matches("aside"));
      const end = last?.matches("p") ? last : inner.at(-1);
      return end?.matches("p") && /:\s*$/.test(end.textContent) ? last : undefined;
    }

    fits(level) {
      this.section.className = `page ${LEVELS[level]}`;
      if (level === GIANT && this.body.querySelector("pre, img, table, .rich")) {
        return false;
      }
      if (level === SMALL) {
        const wide = [...this.body.querySelectorAll("table")].filter(tooWide);
        wide.forEach((table) => table.classList.add("tight"));
      }
      const rigid = [...this.body.querySelectorAll("table, mjx-container")];
      return !rigid.some(tooWide) && this.body.offsetHeight <= ROOM.height;
    }

    // Adds `node` if it fits, below what is there already.
    took(node) {
      const level = this.empty || this.lead ? SMALL : MIDDLE;
      this.body.append(node);
      if (this.fits(level)) return true;
      node.remove();
      return false;
    }

    finish() {
      if (this.body.querySelector("h1, h2")) {
        this.section.querySelector(".running")?.remove();
      }
      const [first] = this.shown;
      first?.classList.remove("fragment");
      first?.firstElementChild?.classList.remove("fragment");
      LEVELS.findIndex((_, level) => this.fits(level) || level === SMALL);
      grow(this.body);
      const notes = [...this.section.querySelectorAll("aside.notes")];
      if (notes.length) {
        const all = element("aside", "notes");
        all.append(...notes.flatMap((one) => [...one.childNodes]));
        notes.forEach((one) => one.remove());
        this.section.append(all);
      }
      return this.section;
    }
  }

  function tooWide(node) {
    return node.scrollWidth > ROOM.width || node.offsetWidth > ROOM.width;
  }

  // The largest type in which no line of `pre` goes on to the next. Where even the least
  // is too large, what goes on is set in a little, and breaks between words only.
  function size(pre) {
    const lines = pre.textContent.split("\n");
    const longest = Math.max(...lines.map((line) => line.length));
    const most = Math.max(LEAST_CODE, Math.floor((2 * LINE) / longest) / 2);
    pre.style.setProperty("--most", `${most}px`);
    if (!pre.matches(".output") || longest * LEAST_CODE <= LINE) return;
    const shown = lines.flatMap((line) => [
      line.length * LEAST_CODE > LINE ? hanging(line) : line,
      "\n",
    ]);
    pre.replaceChildren(...shown.slice(0, -1));
  }

  function hanging(line) {
    const made = element("span", "long");
    const indent = Math.min(line.search(/\S|$/), 40) + 2;
    made.style.setProperty("--hang", `${indent}ch`);
    made.append(
      ...line.split(/(\s+)/).map((word) =>
        /^\S{1,60}$/.test(word) ? element("span", "word", word) : word,
      ),
    );
    return made;
  }

  // A formula and the full stop behind it stay on one line.
  function holdTogether(formula) {
    const after = formula.nextSibling;
    const sign = after?.nodeType === Node.TEXT_NODE && after.data.match(/^[.,;:?!)%]+/);
    if (!sign) return;
    after.splitText(sign[0].length);
    const box = element("span", "word");
    formula.before(box);
    box.append(formula, after);
  }

  function grow(body) {
    const images = body.querySelectorAll("img");
    if (images.length !== 1) return;
    const [image] = images;
    const height = Math.min(
      image.offsetHeight + ROOM.height - body.offsetHeight,
      (image.offsetHeight * ROOM.width) / image.offsetWidth,
      image.naturalHeight * MOST_GROWTH,
    );
    image.style.height = `${Math.floor(height)}px`;
  }

  // The parts of what does not fit on a slide of its own.
  function parts(node) {
    if (node.matches(WHOLE)) return [node];
    if (node.matches("pre")) return halves(node, "\n");
    if (node.matches("table")) return halvesOf(node, node.tBodies[0]);
    if (node.matches("ul, ol")) return halvesOf(node, node);
    if (!node.matches("div, section")) return [node];
    const inner = [...node.children];
    const pieces = inner.length === 1 ? parts(inner[0]) : glued(inner);
    // The parts of an output are still one: nobody is to take them for prose.
    for (const kind of ["rich", "out", "fragment"]) {
      if (node.matches(`.rich.${kind}, .out.${kind}`)) {
        pieces.forEach((piece) => piece.classList.add(kind));
      }
    }
    return pieces;
  }

  // Headings, and sentences that end in a colon, stay with what follows them.
  function glued(nodes) {
    const groups = [[]];
    nodes.forEach((node, place) => {
      groups.at(-1).push(node);
      const leads = /^H\d$/.test(node.tagName) || /:\s*$/.test(node.textContent);
      const next = nodes[place + 1];
      if (!(next && node.matches("h1, h2, h3, p") && leads)) groups.push([]);
    });
    return groups.filter((group) => group.length).flatMap((group) => {
      if (group.length === 1 || group.length === nodes.length) return group;
      const box = element("div", "");
      box.append(...group);
      return [box];
    });
  }

  // The HTML of code has no element that goes over the end of a line.
  function halves(pre, end) {
    const inside = pre.querySelector(":scope > code") ?? pre;
    const lines = inside.innerHTML.replace(/\n$/, "").split(end);
    if (lines.length < 2) return [pre];
    const middle = Math.ceil(lines.length / 2);
    return [lines.slice(0, middle), lines.slice(middle)].map((some) => {
      const copy = pre.cloneNode(false);
      copy.innerHTML = some.join(end);
      const box = element("div", "highlight");
      box.append(copy);
      return box;
    });
  }

  function halvesOf(node, holder) {
    const items = [...holder.children];
    if (items.length < 2) return [node];
    const middle = Math.ceil(items.length / 2);
    const rest = node.cloneNode(true);
    const restHolder = holder === node ? rest : rest.tBodies[0];
    restHolder.replaceChildren(...items.slice(middle));
    if (node.matches("ol")) rest.start = node.start + middle;
    return [node, rest];
  }

  function pagesOf(group, heading) {
    const pages = [];
    let page = new Page(heading);
    const next = () => {
      pages.push(page.finish());
      page = new Page(heading);
    };
    const place = (node) => {
      if (node.matches("aside")) page.body.append(node);
      if (node.matches("aside") || page.took(node)) return;
      const lead = page.lead;
      if (lead && page.shown.length > 1) {
        lead.remove();
        next();
        page.took(lead);
        place(node);
        return;
      }
      // What was printed stays with its code; the picture has the next slide to itself.
      const isMixed = node.matches(".out:has(img)");
      const begins = (lead || isMixed) && beginsHere(node);
      if (!page.empty && !begins && fitsAlone(node)) {
        next();
        page.took(node);
        return;
      }
      const pieces = parts(node);
      if (pieces[0] !== node || pieces.length > 1) {
        pieces.forEach(place);
        return;
      }
      if (!page.empty) next();
      page.body.append(node);
    };
    const fitsAlone = (node) => {
      const fits = new Page(heading).took(node);
      node.remove();
      bench.replaceChildren(page.section);
      return fits;
    };
    const beginsHere = (node) => {
      if (node.children.length < 2) return false;
      const start = node.firstElementChild.cloneNode(true);
      const fits = page.took(start);
      start.remove();
      return fits;
    };
    [...group.children].forEach(place);
    pages.push(page.finish());
    return pages;
  }

  // A row of stacks, one a section of the chapter.
  function layOut() {
    bench = element("div", "");
    bench.id = "bench";
    document.body.append(bench);
    const source = document.getElementById("source");
    for (const explorer of source.querySelectorAll(".mpteach-bit-explorer")) {
      explorer.shadowRoot?.append(element("style", "", EXPLORER));
      // Its keys are not those of the show: a typed point would black the screen.
      for (const kind of ["keydown", "keypress"]) {
        explorer.addEventListener(kind, (event) => event.stopPropagation());
      }
    }
    source.querySelectorAll("pre").forEach(size);
    source.querySelectorAll("mjx-container:not([display])").forEach(holdTogether);
    const slides = document.querySelector(".slides");
    let heading;
    for (const group of [...source.children]) {
      const found = group.querySelector("h1, h2");
      if (found || !slides.lastElementChild) slides.append(element("section", ""));
      heading = found ?? heading;
      slides.lastElementChild.append(...pagesOf(group, heading));
    }
    source.remove();
    bench.remove();
  }

  async function start() {
    await MathJax.startup.promise;
    const images = document.querySelectorAll("#source img");
    await Promise.all([...images].map((image) => image.decode()));
    layOut();
    await Reveal.initialize({
      width: 1280,
      height: 720,
      margin: 0,
      center: false,
      hash: true,
      controls: false,
      slideNumber: "c/t",
      transition: "none",
      navigationMode: "linear",
      plugins: [RevealNotes],
    });
  }

  window.addEventListener("load", start);
})();
