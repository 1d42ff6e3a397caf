package protocol

import "strings"

// The headers of a state in the bucket of states; docs/format.md specifies them.
const (
	HeaderStateFormat   = "Rossby-Format"
	HeaderStateFollows  = "Rossby-Follows"
	HeaderStateChecksum = "Rossby-Checksum"
	// StateFormat is the format that there is.
	StateFormat = "1"
)

// StateStream is the stream of a store's bucket of states.
func StateStream(store string) string { return "KV_" + store + "__state" }

// StateSubject is that of an aggregate's state under a fingerprint, which may be "*".
func StateSubject(store, typ, fingerprint, id string) string {
	return "$KV." + store + "__state." + typ + "." + fingerprint + "." + StateKey(id)
}

// StateKey writes an aggregate's id with the characters that a key may have: all
// others are '=' and two hexadecimal digits for each byte.
func StateKey(id string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	b.Grow(len(id))
	for i := range len(id) {
		switch c := id[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_':
			b.WriteByte(c)
		default:
			b.WriteByte('=')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
		}
	}
	return b.String()
}
