// Reads the source of a routine, or the text of a DO block, for the settings it may change. No view lists custom settings
// ("app.user"), so one that code has set can be asked for only by its name. Names in plain sight are collected; whatever
// is not proven to be one of those forms, or to change no custom setting, counts as a name that is made up.
// The patterns are the same for Postgres (on lower-case text) and here; `\y` is the border of a word.

/** An identifier without quotes, lower case, ASCII. */
const WORD = '[a-z_][a-z0-9_$]*';
const CUSTOM = String.raw`${WORD}(?:\.${WORD})+`;

/** Of what follows SET or RESET: a name without a dot, which pg_settings lists, or the columns of an UPDATE. */
const LISTED = [
  String.raw`\s*\(`,
  String.raw`\s+(?:(?:session|local)\s+)?(?!(?:session|local)\y)${WORD}(?:\s*(?:[=([;,)]|$)|\s+[a-z0-9_'])`,
  String.raw`\s+(?:session|local)\s*=`,
  String.raw`\s+"[^".]+"\s*(?:=|to\y)`,
];
/** A custom name in plain sight. */
const NAMED = String.raw`\s+(?:(?:session|local)\s+)?${CUSTOM}(?:\s*(?:=|;|$)|\s+(?:to|from)\s)`;
/** The same of a call of set_config; bodies that the server has parsed show a cast. */
const NAMED_CALL = String.raw`\s*\(\s*(?:'${WORD}(?:\.${WORD})*'(?:::text)?|\$\$${WORD}(?:\.${WORD})*\$\$)\s*,`;

/**
 * A text in one literal is read where it stands, like all the source. %I and %L of format() put in a name or a value, and
 * are not let in where they would name a function.
 */
const LITERAL_TEXT = String.raw`\s*'(?:[^'\\]|'')*'\s*(?:;|\yinto\y|\yusing\y|\yloop\y)`;
const FORMATTED = String.raw`\s*format\s*\(\s*'(?:[^'%\\]|''|%%|(?:\yinto|\ytable|\yon|\yonly|\yexists)\s+(?:%(?:\d+\$)?i\.)?%(?:\d+\$)?i\s*\(|%(?:\d+\$)?[il](?!\s*\())*'`;

/** In lower-case text: something may be set under a name that does not stand there, or that nobody can ask for. */
const MADE_UP = [
  // Definitions that the server shows give the column a name.
  String.raw`(?<!\yas\s)set_config(?!${NAMED_CALL})`,
  String.raw`\y(?:re)?set\y(?!${[...LISTED, NAMED].join('|')})`,
  String.raw`\yexecute\y(?!\s+(?:function|procedure|on)\y|${LITERAL_TEXT}|${FORMATTED})`,
  // They run a text they are given.
  String.raw`\y(?:query_to_xml|query_to_xmlschema|query_to_xml_and_xmlschema|ts_stat|ts_rewrite)\y`,
  String.raw`\y(?:crosstab|connectby|xpath_table)`,
  // Names and strings in escapes.
  `u&["']`,
  // The random generator's state and loaded libraries: state no probe can see.
  String.raw`setseed|\yload\s*'|'seed'|\yset\s+seed\y`,
].join('|');

const NAME_IN_SOURCE = String.raw`(?:set_config\s*\(\s*(?:'|\$\$)|\y(?:re)?set\s+(?:(?:session|local)\s+)?)(${CUSTOM})`;

/** For `~` on a source in lower case. */
export const MADE_UP_NAMES_SQL = MADE_UP;
/** For regexp_matches on a source in lower case: the first group is the name. */
export const CUSTOM_NAMES_SQL = NAME_IN_SOURCE;

const here = (pattern: string, flags: string): RegExp =>
  new RegExp(pattern.replaceAll(String.raw`\y`, String.raw`\b`), flags);
const MADE_UP_HERE = here(MADE_UP, 'i');
const NAMES_HERE = here(NAME_IN_SOURCE, 'gi');
/** A block in another language than those that are read, or whose source stands in escapes. */
const BLOCK = /\bdo\b/i;
const UNREADABLE = /\\|\blanguage\b(?!\s+(?:plpgsql|sql)\b)/i;

/** Whether a text that runs code makes up names of settings, or SQL. */
export const makesUpNames = (text: string): boolean =>
  MADE_UP_HERE.test(text) || (BLOCK.test(text) && UNREADABLE.test(text));

/** The custom settings such a text names. */
export const customNamesIn = (text: string): string[] =>
  [...text.matchAll(NAMES_HERE)].map((match) => match[1]!.toLowerCase());

/** Words of code that leaves something in its session which a probe can see; SET and RESET beside them. */
export const LEAVING_WORDS_SQL = [
  'set_config|pg_settings|pg_(?:try_)?advisory_lock',
  String.raw`\ylisten\y|\yexecute\y|\ytemp(?:orary)?\y|pg_temp`,
].join('|');
/** Anywhere in DDL, whose text holds the code in quotes; what calls itself temporary in its first words is asked for anyway. */
const LEAVES_STATE = here(String.raw`${LEAVING_WORDS_SQL}|\y(?:(?:re)?set|load)\y|u&["']`, 'i');
const OF_TEMPORARY = /^\s*create\s+temp(?:orary)?\b/i;

/** Whether a text of DDL brings code that may leave something in the session that runs it, whatever routines it calls may do. */
export const leavesState = (text: string): boolean =>
  UNREADABLE.test(text) || LEAVES_STATE.test(text.replace(OF_TEMPORARY, ''));
