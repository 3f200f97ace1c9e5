-- \lo_… use the function-call message of the protocol.
-- expect: lo_unlink
SELECT 'large object text' AS t \g (format=unaligned tuples_only=on) object.txt
\lo_import object.txt
\lo_export :LASTOID exported.txt
SELECT convert_from(lo_get(:LASTOID), 'UTF8') AS stored;
\lo_unlink :LASTOID
