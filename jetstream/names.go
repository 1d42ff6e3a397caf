package jetstream

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxIDLength is the longest aggregate id, in bytes.
const MaxIDLength = 128

// ValidateName checks the name of a store, an aggregate type, a command, a view
// or a follower: one or more of a–z, 0–9 and '-'. Returns an [*InvalidError]
// with the given field.
func ValidateName(field, name string) error {
	if name == "" {
		return &InvalidError{Field: field, Value: name, Reason: "is empty"}
	}
	if len(name) > MaxIDLength {
		return &InvalidError{Field: field, Value: name, Reason: fmt.Sprintf("is longer than %d bytes", MaxIDLength)}
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return &InvalidError{Field: field, Value: name, Reason: "may hold only a-z, 0-9 and '-'"}
		}
	}
	return nil
}

// ValidateID checks an aggregate id: a single token of a NATS subject of at most
// [MaxIDLength] bytes, not empty, without blanks, control characters, '.', '*'
// and '>'. Returns an [*InvalidError].
func ValidateID(id string) error {
	if plainID(id) {
		return nil
	}
	var reason string
	switch {
	case id == "":
		reason = "is empty"
	case len(id) > MaxIDLength:
		reason = fmt.Sprintf("is longer than %d bytes", MaxIDLength)
	case !utf8.ValidString(id):
		reason = "is not UTF-8"
	case strings.ContainsAny(id, ".*>"):
		reason = "holds '.', '*' or '>', which have a meaning in NATS subjects"
	case strings.ContainsFunc(id, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		reason = "holds a blank or a control character"
	default:
		return nil
	}
	return &InvalidError{Field: "aggregate id", Value: id, Reason: reason}
}

// plainID tells ids of printable ASCII that nothing is wrong with: nearly all.
func plainID(id string) bool {
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' || c == '.' || c == '*' || c == '>' {
			return false
		}
	}
	return id != "" && len(id) <= MaxIDLength
}

// validateWireName checks an event's name as it is stored: letters, digits,
// '.', '_' and '-', at most [MaxIDLength] of them.
func validateWireName(name string) error {
	if name == "" {
		return &InvalidError{Field: "event name", Value: name, Reason: "is empty"}
	}
	if len(name) > MaxIDLength {
		return &InvalidError{Field: "event name", Value: name, Reason: fmt.Sprintf("is longer than %d bytes", MaxIDLength)}
	}
	for _, r := range name {
		if r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("._-", r) {
			return &InvalidError{Field: "event name", Value: name, Reason: "may hold only letters, digits, '.', '_' and '-'"}
		}
	}
	return nil
}

// Partition is the partition of an aggregate id among count: FNV-1a-32 of the id
// modulo count, which is what the server's {{partition(count,…)}} computes.
func Partition(id string, count int) int {
	h := uint32(2166136261)
	for i := range len(id) {
		h = (h ^ uint32(id[i])) * 16777619
	}
	return int(uint64(h) % uint64(max(count, 1))) //nolint:gosec // count is positive
}

// Subject is the subject that holds every commit of one aggregate:
// <store>.event.<type>.<partition>.<id>. Returns an [*InvalidError].
func (s *Store) Subject(typ, id string) (string, error) {
	if err := ValidateName("aggregate type", typ); err != nil {
		return "", err
	}
	if err := ValidateID(id); err != nil {
		return "", err
	}
	return s.prefix + typ + "." + strconv.Itoa(Partition(id, s.partitions)) + "." + id, nil
}

// SubjectFilter matches every commit of the store, or of one aggregate type.
func (s *Store) SubjectFilter(typ string) string {
	if typ == "" {
		return s.prefix + ">"
	}
	return s.prefix + typ + ".>"
}

// splitSubject takes a commit's subject apart.
func splitSubject(subject string) (typ, id string, ok bool) {
	store, rest, _ := strings.Cut(subject, ".")
	event, rest, _ := strings.Cut(rest, ".")
	typ, rest, _ = strings.Cut(rest, ".")
	partition, id, found := strings.Cut(rest, ".")
	if !found || event != "event" || store == "" || typ == "" || partition == "" || id == "" ||
		strings.IndexByte(id, '.') >= 0 {
		return "", "", false
	}
	return typ, id, true
}
