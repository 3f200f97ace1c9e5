// `\d`, `\dt`, `\l`, `\du`: psql's lists, by psql's queries (psql -E).
import { type CatalogQuery, patternConditions } from './catalog-query.js';
import { type Result, textColumns } from './result-format.js';

/** Tables, views, sequences; with `tables` only tables. A text says that there are none. */
export async function listRelations(
  query: CatalogQuery,
  pattern: string,
  only?: 'tables',
): Promise<readonly Result[] | string> {
  const kinds = only === 'tables' ? "'r','p'" : "'r','p','v','m','S','f'";
  const hidden =
    pattern === ''
      ? "AND n.nspname <> 'pg_catalog' AND n.nspname !~ '^pg_toast' AND n.nspname <> 'information_schema'"
      : '';
  const rows = await query(`
    SELECT n.nspname, c.relname,
      CASE c.relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
        WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table' WHEN 'p' THEN 'partitioned table' END,
      pg_catalog.pg_get_userbyid(c.relowner)
    FROM pg_catalog.pg_class c
      LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN (${kinds}) ${hidden}
      ${patternConditions(pattern, 'c.relname', 'n.nspname', 'pg_catalog.pg_table_is_visible(c.oid)')}
    ORDER BY 1, 2`);
  if (rows.length === 0) {
    return pattern === '' ? 'Did not find any relations.' : `Did not find any relation named "${pattern}".`;
  }
  return [{ tag: '\\d', title: 'List of relations', columns: textColumns('Schema', 'Name', 'Type', 'Owner'), rows }];
}

export async function listDatabases(query: CatalogQuery, pattern: string, serverVersion: number): Promise<Result[]> {
  // The columns of psql 15; the locale of a database has changed its name twice since.
  const icuLocale = serverVersion >= 17 ? 'd.datlocale' : serverVersion >= 15 ? 'd.daticulocale' : 'NULL';
  const provider =
    serverVersion >= 15
      ? "CASE d.datlocprovider WHEN 'b' THEN 'builtin' WHEN 'c' THEN 'libc' WHEN 'i' THEN 'icu' END"
      : "'libc'";
  const rows = await query(`
    SELECT d.datname, pg_catalog.pg_get_userbyid(d.datdba), pg_catalog.pg_encoding_to_char(d.encoding),
      d.datcollate, d.datctype, ${icuLocale}, ${provider}, pg_catalog.array_to_string(d.datacl, E'\\n')
    FROM pg_catalog.pg_database d
    WHERE true ${patternConditions(pattern, 'd.datname')}
    ORDER BY 1`);
  const names = ['Name', 'Owner', 'Encoding', 'Collate', 'Ctype', 'ICU Locale', 'Locale Provider', 'Access privileges'];
  return [{ tag: '\\l', title: 'List of databases', columns: textColumns(...names), rows }];
}

export async function listRoles(query: CatalogQuery, pattern: string): Promise<Result[]> {
  const hidden = pattern === '' ? "AND r.rolname !~ '^pg_'" : '';
  const roles = await query(`
    SELECT r.rolname,
      pg_catalog.concat_ws(', ', CASE WHEN r.rolsuper THEN 'Superuser' END,
        CASE WHEN NOT r.rolinherit THEN 'No inheritance' END, CASE WHEN r.rolcreaterole THEN 'Create role' END,
        CASE WHEN r.rolcreatedb THEN 'Create DB' END, CASE WHEN NOT r.rolcanlogin THEN 'Cannot login' END,
        CASE WHEN r.rolreplication THEN 'Replication' END, CASE WHEN r.rolbypassrls THEN 'Bypass RLS' END),
      r.rolconnlimit, r.rolvaliduntil,
      ARRAY(SELECT b.rolname FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles b ON m.roleid = b.oid
            WHERE m.member = r.oid)
    FROM pg_catalog.pg_roles r
    WHERE true ${hidden} ${patternConditions(pattern, 'r.rolname')}
    ORDER BY 1`);
  const rows = roles.map(([name, attributes, limit, validUntil, memberOf]) => [
    name!,
    [attributes, connectionsText(Number(limit)), validUntil && `Password valid until ${validUntil}`]
      .filter(Boolean)
      .join('\n'),
    memberOf!,
  ]);
  const names = textColumns('Role name', 'Attributes', 'Member of');
  return [{ tag: '\\du', title: 'List of roles', columns: names, rows, footers: [] }];
}

function connectionsText(limit: number): string {
  if (limit < 0) return '';
  if (limit === 0) return 'No connections';
  return limit === 1 ? '1 connection' : `${limit} connections`;
}
