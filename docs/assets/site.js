// What is wider than the screen scrolls by itself; let the keyboard reach it.
function reach() {
  for (const box of document.querySelectorAll("pre > code, .md-typeset__scrollwrap")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
}

// Tell the style sheet what cells hold, so that numbers stay whole and prose gets room on a phone.
function sortCells() {
  for (const table of document.querySelectorAll(".md-typeset table:not([class])")) {
    if (table.rows[0].cells.length > 5) table.dataset.columns = "many";
    for (const cell of table.querySelectorAll("th, td")) {
      const text = cell.textContent.trim();
      if (text.length > 40) cell.dataset.holds = text.length > 90 ? "text" : "prose";
      else if (cell.tagName === "TD" && /\d/.test(text) && text.length <= 12) cell.dataset.holds = "number";
      keepUnits(cell);
    }
    table.querySelectorAll("code").forEach(breakNames);
  }
}

// "91.1 %" and "0.3 ± 0.1" are one word each.
function keepUnits(cell) {
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) walker.currentNode.data = walker.currentNode.data.replace(/(?<=\d) (?=%)| (?=±)|(?<=±) /g, "\u00a0");
}

// A long path or call may go on in the next line behind a sign, what is long even then behind any word.
function breakNames(code) {
  if (code.textContent.length <= 24 || code.children.length) return;
  code.dataset.holds = "parts";
  const parts = code.textContent.split(/(?<=[/(,=]|::)/).flatMap((part) => part.length > 24 ? part.split(/(?<=_)/) : [part]);
  code.replaceChildren(...parts.flatMap((part) => [part, document.createElement("wbr")]));
}

// Pictures open at their full size, which a phone can enlarge further.
function openPictures() {
  for (const image of document.querySelectorAll(".md-content :is(p, td) > img")) {
    const link = document.createElement("a");
    link.href = image.src;
    image.replaceWith(link);
    link.append(image);
  }
}

sortCells();
openPictures();
addEventListener("load", () => setTimeout(reach));
addEventListener("resize", reach);
