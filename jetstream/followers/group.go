package followers

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
)

// What differs between failures of one kind: ids, numbers, addresses, quoted texts.
var (
	eventPrefix = regexp.MustCompile(`^event \S+ \((\S+) of (\S+) "[^"]*", version \d+\): `)
	variable    = regexp.MustCompile(`"[^"]*"|'[^']*'|[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|0x[0-9a-fA-F]+|\d+(?:[.:,]\d+)*`)
)

// Pattern is a failure with what differs left out: two failures of one kind have
// the same.
func Pattern(failure string) string {
	failure = eventPrefix.ReplaceAllString(failure, "$2 $1: ")
	return variable.ReplaceAllString(failure, "…")
}

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
