// The tokenizer of vi-mini: NFKC, one space for any white space, "▁" before each word, and the pieces of a Unigram
// model. What it gives is what the package `tokenizers` gives for the tokenizer.json of the model.

const WHITE = /[\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/gu;
const UNKNOWN_PENALTY = 10; // below the least likely piece

export class Tokenizer {
  /** Pieces and their log probabilities, ids and names of special ones, and how many tokens a text may have. */
  constructor({ pieces, scores, special, names, longest }) {
    this.ids = new Map(pieces.map((piece, id) => [piece, id]));
    this.scores = scores;
    this.special = special;
    this.longest = longest;
    this.length = Math.max(...pieces.map(piece => piece.length));
    this.unknownScore = Math.min(...scores) - UNKNOWN_PENALTY;
    this.names = new RegExp(`(${names.join("|")})`); // in a text they stand for themselves
  }

  /** The ids of a text, from "<s>" to "</s>". */
  encode(text) {
    const ids = [];
    const parts = text.replace(/\p{Surrogate}/gu, "\ufffd").split(this.names);
    parts.forEach((part, index) => {
      if (index % 2) ids.push(this.ids.get(part));
      else if (part) for (const word of words(part)) ids.push(...this.pieces(word));
    });
    return [this.special.begin, ...ids.slice(0, this.longest - 2), this.special.end];
  }

  /** The most likely pieces of a word: best path, letter by letter. */
  pieces(word) {
    const best = [{ score: 0 }];
    for (let start = 0; start < word.length; start += width(word, start)) {
      const { score } = best[start];
      const next = start + width(word, start);
      const improve = (end, id, more) => {
        if (!best[end] || score + more > best[end].score) best[end] = { score: score + more, id, start };
      };
      const last = Math.min(start + this.length, word.length);
      for (let end = next; end <= last; end += width(word, end)) {
        const id = this.ids.get(word.slice(start, end));
        if (id !== undefined) improve(end, id, this.scores[id]);
      }
      if (!this.ids.has(word.slice(start, next))) improve(next, this.special.unknown, this.unknownScore);
    }
    const found = [];
    for (let end = word.length; end > 0; end = best[end].start) {
      const { id } = best[end];
      if (id !== this.special.unknown || found[0] !== id) found.unshift(id); // unknown letters side by side are one
    }
    return found;
  }
}

/** "Chào bạn" as "▁Chào", "▁bạn". */
function words(text) {
  const marked = text.normalize("NFKC").replace(WHITE, " ").replaceAll(" ", "▁");
  return (marked.startsWith("▁") ? marked : "▁" + marked).match(/▁[^▁]*/gu);
}

function width(word, index) {
  return word.codePointAt(index) > 0xffff ? 2 : 1;
}
