-- Rows for the tables that test_setup fills from files which are not here: as many, the same columns' ranges, the same
-- kind of order, made by arithmetic. Empty tables would leave most queries of the scripts without an answer to compare.

CREATE FUNCTION pg_temp.letters(n int) RETURNS name LANGUAGE sql IMMUTABLE AS
    $$ SELECT (chr(65 + n % 26) || chr(65 + n / 26 % 26) || chr(65 + n / 676 % 26) || 'AAA')::name $$;

CREATE FUNCTION pg_temp.rows(rows int) RETURNS SETOF tenk1 LANGUAGE sql AS $$
    SELECT u, n, u % 2, u % 4, u % 10, u % 20, u % 100, u % 1000, u % 2000, u % 5000, u, u % 50 * 2 + 1, u % 50 * 2,
        pg_temp.letters(u), pg_temp.letters(n), (ARRAY['AAAAxx', 'HHHHxx', 'OOOOxx', 'VVVVxx'])[n % 4 + 1]::name
    FROM (SELECT n, (n * 7919 + 8800) % rows AS u FROM generate_series(0, rows - 1) AS n) AS numbered
    ORDER BY n
$$;

INSERT INTO onek SELECT * FROM pg_temp.rows(1000);
INSERT INTO tenk1 SELECT * FROM pg_temp.rows(10000);
INSERT INTO onek2 SELECT * FROM onek;
INSERT INTO tenk2 SELECT * FROM tenk1;

INSERT INTO person SELECT name, 20 + n * 7 % 60, point(n % 11, n % 13)
    FROM unnest('{mike,joe,sally,sandra,alex,sue,denise,sarah,teresa,nan,leah,wendy,melissa}'::text[])
    WITH ORDINALITY AS named (name, n);
INSERT INTO emp VALUES ('sharon', 25, '(15,12)', 1000, 'sam'), ('sam', 30, '(10,5)', 2000, 'bill'),
    ('bill', 20, '(11,10)', 1000, 'sharon');
INSERT INTO student VALUES ('fred', 28, '(3.1,-1.5)', 3.7), ('larry', 60, '(21.8,4.9)', 3.1);
INSERT INTO stud_emp VALUES ('jeff', 23, '(8,7.7)', 600, 'sharon', 3.5, NULL), ('cim', 30, '(10.5,4.7)', 400, NULL, 3.4, NULL),
    ('linda', 19, '(0.9,6.1)', 100, NULL, 2.9, NULL);
INSERT INTO road SELECT (ARRAY['I- ', 'State Hwy ', 'Street '])[n % 3 + 1] || n, path(format('[(%s,%s),(%s,%s)]', n, n % 7, n + 1, n % 5))
    FROM generate_series(1, 300) AS n;
INSERT INTO ihighway SELECT * FROM ONLY road WHERE name ~ 'I- .*';
INSERT INTO shighway SELECT *, 'asphalt' FROM ONLY road WHERE name ~ 'State Hwy.*';
VACUUM ANALYZE;
