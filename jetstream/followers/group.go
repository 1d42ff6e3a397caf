package followers

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"
)

// eventPrefix is how a failure of one event of a commit begins.
var eventPrefix = regexp.MustCompile(`^event \S+ \((\S+) of (\S+) "[^"]*", version \d+\): `)

// Pattern is a failure with what differs left out: ids, numbers, addresses, quoted
// texts. Two failures of one kind have the same.
func Pattern(failure string) string {
	if strings.HasPrefix(failure, "event ") {
		failure = eventPrefix.ReplaceAllString(failure, "$2 $1: ")
	}
	var b strings.Builder
	b.Grow(len(failure))
	kept := 0 // what lies before is written
	for i := 0; i < len(failure); {
		n := variable(failure[i:])
		if n == 0 {
			i++
			continue
		}
		b.WriteString(failure[kept:i])
		b.WriteString("…")
		i += n
		kept = i
	}
	b.WriteString(failure[kept:])
	return b.String()
}

// variable is the length of what differs at the beginning of a text, 0 for nothing. A
// status has a failure for each lane: by a regular expression they took longer than
// who asks may wait.
func variable(s string) int {
	if s[0] == '"' || s[0] == '\'' {
		if end := strings.IndexByte(s[1:], s[0]); end >= 0 {
			return end + 2
		}
		return 0
	}
	const uuid = 36
	if len(s) >= uuid && s[8] == '-' && span(s[:8], isHex) == 8 &&
		span(s[9:uuid], func(c byte) bool { return c == '-' || isHex(c) }) == uuid-9 {
		return uuid
	}
	if strings.HasPrefix(s, "0x") {
		if n := span(s[2:], isHex); n > 0 {
			return n + 2
		}
	}
	n := span(s, isDigit)
	for n > 0 && n < len(s) && strings.IndexByte(".:,", s[n]) >= 0 {
		more := span(s[n+1:], isDigit)
		if more == 0 {
			break
		}
		n += 1 + more
	}
	return n
}

// span is how many bytes at the beginning of a text are of a kind.
func span(s string, is func(c byte) bool) int {
	for i := range len(s) {
		if !is(s[i]) {
			return i
		}
	}
	return len(s)
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isHex(c byte) bool { return isDigit(c) || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }

// GroupID names the group of a failure.
func GroupID(failure string) string {
	sum := sha256.Sum256([]byte(Pattern(failure)))
	return hex.EncodeToString(sum[:6])
}

// GroupLanes groups lanes by their failures, the largest group first.
func GroupLanes(lanes []Lane) []Group {
	byID := map[string]*Group{}
	for _, l := range lanes {
		id := GroupID(l.Error)
		g := byID[id]
		if g == nil {
			g = &Group{ID: id, Pattern: Pattern(l.Error)}
			byID[id] = g
		}
		l.Group = id
		g.Count++
		g.Lanes = append(g.Lanes, l)
		if l.Since != nil && (g.Oldest == nil || l.Since.Before(*g.Oldest)) {
			g.Oldest = l.Since
		}
	}
	groups := make([]Group, 0, len(byID))
	for _, g := range byID {
		groups = append(groups, *g)
	}
	slices.SortFunc(groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.ID, b.ID))
	})
	return groups
}
