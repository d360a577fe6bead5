-- RFC 9562: the first 128 bits of sha1(namespace || name), with version 5 and the variant set. The arithmetic is on a
-- bit string, so that the digest stands here once and is computed once. A text cast to bytea is taken byte for byte
-- when its backslashes are doubled; convert_to() is not immutable and would not be inlined.
select
    encode(
        substr(
            bit_send(
                (
                    ('x' || encode(
                        phase2.sha1(uuid_send(namespace) || replace(name, E'\\', E'\\\\')::bytea), 'hex'
                    ))::bit(128)
                    & x'ffffffffffff0fff3fffffffffffffff'
                )
                | x'00000000000050008000000000000000'
            ),
            5
        ),
        'hex'
    )::uuid
