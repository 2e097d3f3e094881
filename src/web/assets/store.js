// What this tab remembers. Storage can be full or forbidden: then it is simply forgotten.

function area(kind) {
  return {
    get(key) {
      try { return JSON.parse(window[kind].getItem('holt:' + key)); } catch { return null; }
    },
    set(key, value) {
      try {
        if (value == null || value === '') window[kind].removeItem('holt:' + key);
        else window[kind].setItem('holt:' + key, JSON.stringify(value));
      } catch { /* nothing to do: the page works without it */ }
    },
    // Leaves nothing of one person's session for the next.
    clear() {
      try {
        for (const key of Object.keys(window[kind])) if (key.startsWith('holt:')) window[kind].removeItem(key);
      } catch { /* as above */ }
    },
  };
}

export const tab = area('sessionStorage');
export const device = area('localStorage');
