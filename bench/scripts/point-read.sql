\set id random(1, 100000)
SELECT id, value FROM bench_ordinary WHERE id = :id;
