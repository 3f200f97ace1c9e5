// A text with holes for a client's literals: what is kept in a Template, since only the literals differ between the texts
// of one shape. kv-text.ts puts it together.

/** Text with the client's literals in their places: strings as they stand, numbers are indexes of literals. */
export type TextParts = readonly (string | number)[];
