"use strict";
// Puts the masks in the order that is asked for; without a script they stand as in the dataset.
const order = document.getElementById("order");
const list = document.getElementById("masks");
const items = [...list.children];
const bad = new Map(items.map((item) => [item, JSON.parse(item.dataset.bad)]));
const worst = (item) => bad.get(item)[order.value] ?? -Number.MAX_VALUE;
order.addEventListener("change", () => {
  list.append(...(order.value ? [...items].sort((a, b) => worst(b) - worst(a)) : items));
});
