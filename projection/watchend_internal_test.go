package projection

import (
	"slices"
	"testing"
)

// TestWatchReadyAtTheLeadersEnd: what a watch reads in several pages comes from several
// replicas. A key that the first one had further on, as it was written again, is not yet
// there on the next one, which is behind. That one's end is none: nothing is ready until
// a page ends where the leader was.
func TestWatchReadyAtTheLeadersEnd(t *testing.T) {
	t.Parallel()
	for name, removed := range map[string]bool{"stored last": false, "removed since": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := play(t)
			p.generations(1)
			p.at(1, 10)
			p.key(1, "again", `1`, 9)
			p.key(1, "once", `2`, 10)
			p.key(1, "again", `3`, 11)
			p.at(1, 11)
			if removed { // with a generation: no page can end there
				p.store(nil, nil)
			}
			p.page = 2
			all := len(p.log)
			p.has = behind(all, 4, 3, func(ask directGet) bool { return ask.Batch > 0 && ask.Seq > 1 })
			var got []string
			for c, err := range p.reader().Watch(patience(t), WatchOptions{}) {
				if err != nil {
					t.Fatal(err)
				}
				if got = append(got, c.Kind.String()+" "+c.Entry.Key); len(got) == 3 {
					break
				}
			}
			if want := []string{"put once", "put again", "ready "}; !slices.Equal(got, want) {
				t.Errorf("%q, wanted %q", got, want)
			}
		})
	}
}
