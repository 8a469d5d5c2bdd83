// Filters of a page of cards: a card is shown that has every value chosen.

for (const filters of document.querySelectorAll('.filters')) {
  const selects = [...filters.querySelectorAll('select')];
  const cards = [...filters.parentElement.querySelectorAll('article')];
  const update = () => {
    for (const card of cards) {
      const groups = card.dataset.groups.split(',').map((numbers) => numbers.split(' '));
      card.hidden = !selects.every(({ value }, i) => value === '' || groups[i].includes(value));
    }
    const shown = cards.filter((card) => !card.hidden).length;
    filters.querySelector('[role="status"]').textContent = shown
      ? `${shown} of ${cards.length}`
      : 'None has all of these.';
  };
  filters.addEventListener('change', update);
  filters.hidden = false;
  update();
}
