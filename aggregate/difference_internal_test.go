package aggregate

import (
	"math"
	"strings"
	"testing"
	"time"
)

type (
	part  struct{ Name string }
	outer struct {
		part

		Cents int64
		Rate  float64
		At    time.Time
		Tags  []string
		Open  map[string]part
		Next  *part
		Blob  []byte
		Of    [2]int
		lost  int `json:"-"` //nolint:unused // what is not stored
	}
)

// Values that differ are named with their place, and only those.
func TestDifferences(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, time.May, 4, 12, 0, 0, 0, time.UTC)
	whole := func(change func(*outer)) *outer {
		o := &outer{
			part: part{"p"}, Cents: 5, Rate: math.NaN(), At: noon, Tags: []string{"a", "b"},
			Open: map[string]part{"x": {"1"}, "y": {"2"}}, Next: &part{"n"}, Blob: []byte("b"),
		}
		change(o)
		return o
	}
	for want, change := range map[string]func(*outer){
		"":                                  func(*outer) {},
		"Name is \"p\", replayed \"q\"":     func(o *outer) { o.Name = "q" },
		"Cents is 5, replayed 6":            func(o *outer) { o.Cents = 6 },
		"Rate is NaN, replayed 1":           func(o *outer) { o.Rate = 1 },
		"At is 2026-05-04 12:00:00 +0000 U": func(o *outer) { o.At = noon.Add(1) },
		"Tags[1] is \"b\", replayed \"c\"":  func(o *outer) { o.Tags[1] = "c" },
		"Tags[1] is \"b\", replayed missing": func(o *outer) {
			o.Tags = o.Tags[:1]
		},
		"Tags[2] is missing, replayed \"c\"":                                  func(o *outer) { o.Tags = append(o.Tags, "c") },
		"Open[\"y\"].Name is \"2\", replayed \"3\"":                           func(o *outer) { o.Open["y"] = part{"3"} },
		"Open[\"x\"] is {Name:1}, replayed missing":                           func(o *outer) { delete(o.Open, "x") },
		"Open[\"z\"] is missing, replayed {Name:}":                            func(o *outer) { o.Open["z"] = part{} },
		"Next is {Name:n}, replayed missing":                                  func(o *outer) { o.Next = nil },
		"Next.Name is \"n\", replayed \"m\"":                                  func(o *outer) { o.Next = &part{"m"} },
		"Blob[0] is 98, replayed 99":                                          func(o *outer) { o.Blob = []byte("c") },
		"Of[1] is 0, replayed 7":                                              func(o *outer) { o.Of[1] = 7 },
		"Cents is 5, replayed 0; Tags[0] is \"a\", replayed missing; Tags[1]": func(o *outer) { o.Cents, o.Tags = 0, nil },
	} {
		got := differences(whole(func(*outer) {}), whole(change))
		if !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%q, want %q", got, want)
		}
	}
	type lists struct {
		A []int
		M map[int]int
	}
	if got := differences(&lists{}, &lists{A: []int{}, M: map[int]int{}}); got != "" {
		t.Error("nil and empty: ", got)
	}
	many := &lists{A: make([]int, 100)}
	if got := differences(&lists{}, many); strings.Count(got, ";") != mostDifferences || !strings.HasSuffix(got, "and 90 more") {
		t.Error(got)
	}
	if got := differences(&part{strings.Repeat("x", 1000)}, &part{}); len(got) > 2*mostValue {
		t.Error(got)
	}
	type list struct{ Next *list }
	deep := func(n int, end *list) *list {
		for range n {
			end = &list{end}
		}
		return end
	}
	if got := differences(deep(1000, nil), deep(1001, nil)); got == "" {
		t.Error("a difference far below is not seen")
	}
}
