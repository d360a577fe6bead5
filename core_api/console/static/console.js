// Says it when the console does not answer a part of a page: numbers that stand still would look like a quiet hour.
for (const [event, away] of [["htmx:sendError", true], ["htmx:timeout", true], ["htmx:afterOnLoad", false]]) {
  document.addEventListener(event, () => { document.getElementById("away").hidden = !away; });
}
