\set id {random}
SELECT id, value FROM bench_ordinary WHERE id = :id;
