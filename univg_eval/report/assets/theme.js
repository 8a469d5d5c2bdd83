// Light or dark: as the system has it until the button is pressed, then as it was chosen. The
// choice is kept where the browser lets a file keep anything.

const THEME_KEY = 'univg-report-theme';
const darkSystem = matchMedia('(prefers-color-scheme: dark)');

function stored(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // a browser that keeps nothing for files
  }
}

function store(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // the choice holds for this visit
  }
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === 'dark' : darkSystem.matches;
}

function nameThemeButton() {
  find('theme').textContent = isDark() ? 'Light' : 'Dark';
  find('theme').setAttribute('aria-label', `Switch to ${isDark() ? 'light' : 'dark'} colours`);
}

function setTheme(theme) {
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  nameThemeButton();
}

setTheme(stored(THEME_KEY));
find('theme').hidden = false;
find('theme').addEventListener('click', () => {
  const theme = isDark() ? 'light' : 'dark';
  store(THEME_KEY, theme);
  setTheme(theme);
});
darkSystem.addEventListener('change', nameThemeButton);
