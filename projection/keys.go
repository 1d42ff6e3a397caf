package projection

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxKeyLength is the longest key of a view, in bytes as it is stored.
const MaxKeyLength = 512

const hexDigits = "0123456789ABCDEF"

// plain tells bytes that may stand in a bucket's key as they are.
func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '/'
}

// dotStands tells whether the dot at i may be written as it is: between two
// characters, and not after another dot.
func dotStands(key string, i int) bool { return i > 0 && i < len(key)-1 && key[i-1] != '.' }

// encodeKey writes a view's key as a bucket's key can hold it. What does not fit
// becomes "=" and two hexadecimal digits, so that any text can be a key and usual
// ids stay as they are.
func encodeKey(key string) (string, error) {
	switch {
	case key == "":
		return "", &KeyError{Key: key, Reason: "is empty"}
	case !utf8.ValidString(key):
		return "", &KeyError{Key: key, Reason: "is not UTF-8"}
	}
	clean := len(key) <= MaxKeyLength
	for i := 0; i < len(key) && clean; i++ {
		clean = plain(key[i]) || key[i] == '.' && dotStands(key, i)
	}
	if clean {
		return key, nil
	}
	var b strings.Builder
	for i := range len(key) {
		c := key[i]
		if plain(c) || c == '.' && dotStands(key, i) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('=')
		b.WriteByte(hexDigits[c>>4])
		b.WriteByte(hexDigits[c&15])
	}
	if b.Len() > MaxKeyLength {
		return "", &KeyError{Key: key, Reason: "is longer than " + strconv.Itoa(MaxKeyLength) + " bytes as stored"}
	}
	return b.String(), nil
}

// decodeKey reads what encodeKey wrote.
func decodeKey(stored string) (string, error) {
	if strings.IndexByte(stored, '=') < 0 {
		return stored, nil
	}
	var b strings.Builder
	for i := 0; i < len(stored); i++ {
		if stored[i] != '=' {
			b.WriteByte(stored[i])
			continue
		}
		if i+2 >= len(stored) {
			return "", &KeyError{Key: stored, Reason: "ends within an escape"}
		}
		n, err := strconv.ParseUint(stored[i+1:i+3], 16, 8)
		if err != nil {
			return "", &KeyError{Key: stored, Reason: "holds a bad escape"}
		}
		b.WriteByte(byte(n))
		i += 2
	}
	return b.String(), nil
}

// prefixFilters are stored keys, possibly with a wildcard, that cover every key
// that begins with prefix, and maybe others.
func prefixFilters(prefix string) []string {
	for i := len(prefix) - 1; i > 0; i-- {
		if prefix[i] != '.' || prefix[i-1] == '.' {
			continue
		}
		head, err := encodeKey(prefix[:i])
		if err != nil {
			break
		}
		filters := []string{head + ".>"}
		if i == len(prefix)-1 {
			// The key that is the prefix itself ends with its dot escaped.
			if exact, err := encodeKey(prefix); err == nil {
				filters = append(filters, exact)
			}
		}
		return filters
	}
	return []string{">"}
}
