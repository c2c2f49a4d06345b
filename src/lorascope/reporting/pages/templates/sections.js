// Sections open for their links, and for print.
"use strict";
const openAround = (place) => {
  for (let own = place?.closest("details"); own; own = own.parentElement.closest("details")) own.open = true;
};
const follow = () => openAround(document.getElementById(decodeURIComponent(location.hash.slice(1))));
addEventListener("hashchange", follow);
for (const link of document.querySelectorAll('a[href^="#"]')) {
  link.addEventListener("click", () => openAround(document.getElementById(link.hash.slice(1))));
}
follow();

let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("section > details:not([open]), details.why:not([open])")];
  closed.forEach((own) => (own.open = true));
});
addEventListener("afterprint", () => closed.forEach((own) => (own.open = false)));
