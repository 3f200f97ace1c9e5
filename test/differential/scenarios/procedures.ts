// DO blocks, functions, procedures with their own transactions, triggers.
import type { Theme } from '../scenario.js';

export const procedures: Theme = {
  name: 'functions, procedures and triggers',
  fixture: `
    create table job (id int primary key, state text default 'new');
    insert into job select g from generate_series(1, 5) g;
    create procedure commit_each(inout n int) language plpgsql as $$
    begin
      for i in 1..n loop
        update job set state = 'done ' || i where id = i;
        if i % 2 = 0 then commit; else rollback; end if;
      end loop;
      n := n * 2;
    end $$;
    create function cursor_of() returns setof job language plpgsql as $$
    begin return query select * from job order by id; end $$;
    create function refuse() returns trigger language plpgsql as $$
    begin if new.state = 'bad' then raise exception 'state % refused', new.state using hint = 'choose another'; end if;
      new.state := upper(new.state); return new; end $$;
    create trigger refuse before update on job for each row execute function refuse();
    create function count_statement() returns trigger language plpgsql as $$
    begin raise notice '% % %', tg_op, tg_level, tg_table_name; return null; end $$;
    create trigger count_statement after update or delete on job for each statement execute function count_statement();
    create function variadic_sum(variadic int[]) returns bigint language sql as $$select sum(x) from unnest($1) x$$;
    create function any_of(anyelement, anyarray) returns anyelement language sql as $$select coalesce($1, $2[1])$$;
    create function records() returns setof record language sql as $$values (1, 'a'::text), (2, 'b')$$;
    create function security() returns text language sql security definer as $$select current_user::text$$;`,
  scenarios: [
    {
      name: 'DO blocks',
      steps: [
        'do $$ begin end $$',
        'do language plpgsql $$ declare n int; begin select count(*) into n from job; raise notice $x$% jobs$x$, n; end $$',
        'do $$ begin update job set state = $x$by do$x$ where id = 1; end $$',
        'select state from job where id = 1',
        'do $$ begin for i in 1..3 loop insert into job values (i + 10); end loop; end $$',
        'do $$ begin insert into job values (1); exception when unique_violation then raise notice $x$%$x$, sqlerrm; end $$',
        'do $$ begin insert into job values (50); perform 1/0; end $$',
        'select count(*) from job',
        'do $$ begin insert into job values (51); commit; insert into job values (52); rollback; end $$',
        'select max(id) from job',
        'begin',
        'do $$ begin commit; end $$',
        'rollback',
        'do $$ begin return 1; end $$',
        'do $$ syntax error $$',
        'do language sql $$ select 1 $$',
        `do $$ begin execute 'select 1; select 2'; end $$`,
        `do $$ begin execute format('create temp table %I (x int)', 'In Do'); insert into "In Do" values (1); end $$`,
        'select * from "In Do"',
      ],
    },
    {
      name: 'procedures that commit',
      steps: [
        'call commit_each(4)',
        'select * from job order by id',
        'begin',
        'call commit_each(2)',
        'rollback',
        'call commit_each(null)',
        'call commit_each()',
        'call commit_each(1, 2)',
        'call no_such_procedure()',
        'select commit_each(1)',
        'call cursor_of()',
        { sql: 'call commit_each($1)', params: ['2'] },
      ],
    },
    {
      name: 'several CALLs in one query are one transaction',
      modes: ['simple'],
      steps: [
        'select 1; call commit_each(2)',
        'call commit_each(2); select 1',
        'select count(*) from job where state <> $$new$$',
      ],
    },
    {
      name: 'triggers',
      steps: [
        `update job set state = 'good' where id = 1 returning *`,
        `update job set state = 'bad' where id = 2`,
        'update job set state = $$none$$ where false',
        'delete from job where id = 5',
        'alter table job disable trigger refuse',
        `update job set state = 'bad' where id = 2 returning state`,
        'alter table job enable trigger all',
        `create trigger no_such_function after insert on job execute function no_such()`,
        'drop trigger refuse on job',
        'drop trigger refuse on job',
        `select tgname, tgenabled from pg_trigger where tgrelid = 'job'::regclass and not tgisinternal order by 1`,
      ],
    },
    {
      name: 'calling functions in every way',
      readOnly: true,
      steps: [
        'select * from cursor_of()',
        'select cursor_of()',
        'select (cursor_of()).id',
        'select variadic_sum(1, 2, 3), variadic_sum(variadic array[4, 5])',
        'select any_of(null::int, array[7])',
        `select any_of('x', 'y')`,
        'select * from records() as t(a int, b text)',
        'select * from records()',
        'select * from records() as t(a int)',
        'select * from records() as t(a int, b int)',
        'select security()',
        `select proname, prokind, prosecdef from pg_proc where proname in ('security', 'commit_each') order by 1`,
        `select pg_get_functiondef('security'::regproc)`,
        { sql: 'select variadic_sum(variadic $1)', params: ['{1,2}'] },
        { sql: 'select any_of($1, $2)', params: ['1', '{2}'] },
        { sql: 'select any_of($1::int, $2)', params: ['1', '{2}'] },
      ],
    },
  ],
};
