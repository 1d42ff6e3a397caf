package projection

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestFindLargeValues: what a search finds is yielded whole where one answer holds only a
// few of the values, in its order.
func TestFindLargeValues(t *testing.T) {
	t.Parallel()
	const n = 100
	p := play(t)
	p.generations(1)
	for i := range n {
		key, place := fmt.Sprintf("k%d", i), fmt.Sprintf("owner.o%02d", n-1-i)
		p.indexed(1, key, strconv.Itoa(i%10), 5, place)
		p.entry(1, place, key)
	}
	p.at(1, 10)
	p.bytes = 30
	r := p.reader()
	for _, limit := range []int{0, 31} {
		want := n
		if limit > 0 {
			want = limit
		}
		got := 0
		for e, err := range r.Find(patience(t), "owner", FindOptions{Limit: limit}) {
			i := n - 1 - got
			if err != nil || e.Key != fmt.Sprintf("k%d", i) || e.Value != i%10 || e.Indexed != fmt.Sprintf("o%02d", got) {
				t.Fatalf("limit %d, entry %d: %+v, %v", limit, got, e, err)
			}
			got++
		}
		if got != want {
			t.Errorf("limit %d: %d of %d entries", limit, got, want)
		}
	}
}

// TestFindEndsBehindAPage: a search whose keys are known already, and that finds more than
// a thousand of their values by then, does not end with the thousandth.
func TestFindEndsBehindAPage(t *testing.T) {
	t.Parallel()
	const keys, values = 3, 337
	p := play(t)
	p.generations(1)
	places := make([]string, values)
	for i := range places {
		places[i] = fmt.Sprintf("owner.o%03d", i)
	}
	for k := range keys {
		p.indexed(1, fmt.Sprintf("k%d", k), `1`, 5, places...)
	}
	p.at(1, 10)
	for i, place := range places {
		for k := range keys {
			p.entry(1, place, fmt.Sprintf("k%d", k))
		}
		if i == 9 {
			p.has = behind(2+keys+keys*values, len(p.log), 1, func(ask directGet) bool {
				return slices.ContainsFunc(ask.MultiLast, func(s string) bool { return strings.Contains(s, "*.*") })
			})
		}
	}
	got := 0
	for e, err := range p.reader().Find(patience(t), "owner", FindOptions{}) {
		if err != nil || e.Indexed != places[got/keys][len("owner."):] {
			t.Fatalf("entry %d: %+v, %v", got, e, err)
		}
		got++
	}
	if got != keys*values {
		t.Errorf("%d of %d entries", got, keys*values)
	}
}
