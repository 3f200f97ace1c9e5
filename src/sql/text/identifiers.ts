// Names as SQL writes them: the only place where pgkv quotes one in a text of its own.

/** Always quoted, so that neither case nor a keyword matters. */
export const quoteName = (name: string): string => `"${name.replaceAll('"', '""')}"`;

export const qualifiedName = (schema: string, name: string): string => `${quoteName(schema)}.${quoteName(name)}`;
