package check

import (
	"fmt"
	"slices"
)

// most is how many findings of one kind are told one by one.
const most = 5

// findings collects violations of one kind and tells the first of them.
type findings struct {
	list  []string
	count int
}

func (f *findings) addf(format string, args ...any) {
	if f.count++; f.count <= most {
		f.list = append(f.list, fmt.Sprintf(format, args...))
	}
}

func (f *findings) all(what string) []string {
	if f.count > most {
		f.list = append(f.list, fmt.Sprintf("… and %d more: %s", f.count-most, what))
	}
	return f.list
}

// Element is something that a client wanted to have stored exactly once.
type Element struct {
	Tag     string  `json:"tag"`
	Outcome Outcome `json:"outcome"`
	// Sequence is where it was acknowledged, 0 when that is not known.
	Sequence uint64 `json:"sequence,omitempty"`
	// Times is how many events it makes.
	Times int `json:"times"`
}

// Stored is an event that bears an element's tag, in the order of the store.
type Stored struct {
	Tag      string
	Sequence uint64
}

// Set checks that everything acknowledged is stored, where it was acknowledged, and
// nothing twice; that what surely failed is not; and that nothing is there that
// nobody wanted.
func Set(elements []Element, stored []Stored) []string {
	var lost, twice, undead, moved, foreign findings
	found := map[string][]uint64{}
	last := uint64(0)
	for _, s := range stored {
		found[s.Tag] = append(found[s.Tag], s.Sequence)
		last = max(last, s.Sequence)
	}
	for _, e := range elements {
		at := found[e.Tag]
		delete(found, e.Tag)
		switch {
		case len(at) > e.Times:
			twice.addf("%s is stored %d times, at %v, want %d", e.Tag, len(at), at, e.Times)
		case len(at) > 0 && len(at) < e.Times:
			lost.addf("%s is stored in part: %d of %d events", e.Tag, len(at), e.Times)
		case e.Outcome == OK && len(at) == 0:
			lost.addf("%s was acknowledged at %d (%s) and is lost", e.Tag, e.Sequence, part(e.Sequence, last))
		case e.Outcome == OK && e.Sequence > 0 && !slices.Contains(at, e.Sequence):
			moved.addf("%s was acknowledged at %d and stands at %v", e.Tag, e.Sequence, at)
		case e.Outcome != OK && e.Outcome != Unknown && len(at) > 0:
			undead.addf("%s did not happen (%s) and stands at %v", e.Tag, e.Outcome, at)
		}
	}
	for tag, at := range found {
		foreign.addf("nobody wanted %s, which stands at %v", tag, at)
	}
	return slices.Concat(lost.all("acknowledged and lost"), twice.all("stored too often"), undead.all("failed and stored"),
		moved.all("stored elsewhere"), foreign.all("wanted by nobody"))
}

// Owner is an account that claimed a name.
type Owner struct {
	Name    string
	Account string
}

// Unique checks that no two accounts claimed one name.
func Unique(owners []Owner) []string {
	var shared findings
	first := map[string]string{}
	for _, o := range owners {
		if other, taken := first[o.Name]; taken && other != o.Account {
			shared.addf("%s has the owners %s and %s", o.Name, other, o.Account)
			continue
		}
		first[o.Name] = o.Account
	}
	return shared.all("names with several owners")
}

// Lost counts the acknowledged elements that are not stored.
func Lost(elements []Element, stored []Stored) int {
	there := map[string]bool{}
	for _, s := range stored {
		there[s.Tag] = true
	}
	n := 0
	for _, e := range elements {
		if e.Outcome == OK && !there[e.Tag] {
			n++
		}
	}
	return n
}

// part tells where in the store something was.
func part(sequence, last uint64) string {
	switch {
	case sequence > last:
		return "beyond the end"
	case sequence*3 <= last:
		return "in the first third"
	case sequence*3 <= 2*last:
		return "in the middle"
	}
	return "in the last third"
}

// Replica is what one server has of a store: a digest of each message.
type Replica struct {
	Name    string
	Digests map[uint64]string
}

// Agree checks that replicas hold the same messages.
func Agree(replicas []Replica) []string {
	var differ findings
	for _, r := range replicas[min(1, len(replicas)):] {
		first := replicas[0]
		for seq, digest := range first.Digests {
			if other, ok := r.Digests[seq]; !ok {
				differ.addf("%s has the message at %d, %s has not", first.Name, seq, r.Name)
			} else if other != digest {
				differ.addf("%s and %s have different messages at %d", first.Name, r.Name, seq)
			}
		}
		for seq := range r.Digests {
			if _, ok := first.Digests[seq]; !ok {
				differ.addf("%s has the message at %d, %s has not", r.Name, seq, first.Name)
			}
		}
	}
	return differ.all("differences of replicas")
}
