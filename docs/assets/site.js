// What is wider than the screen scrolls by itself; let the keyboard reach it.
function reach() {
  for (const box of document.querySelectorAll("pre > code, .md-typeset__scrollwrap")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
}
addEventListener("load", () => setTimeout(reach));
addEventListener("resize", reach);
