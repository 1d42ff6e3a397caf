package projection

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/internal/natstest"
)

// compared are the keys that a comparison of generations 1 and 2 finds to differ.
func compared(t *testing.T, p *played, o CompareOptions) (keys []string, counts Compared) {
	t.Helper()
	a, err := NewAdmin(p.nc, p.bucket.store, p.view)
	if err != nil {
		t.Fatal(err)
	}
	o.Wait = natstest.Patience
	for d, err := range a.Compare(patience(t), 1, 2, o, &counts) {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, d.Key)
	}
	return keys, counts
}

// TestCompareWithReplicasBehind: a comparison asks any replica. What one that is behind
// shows is no difference when the leader has mended it, and its end is not the list's.
func TestCompareWithReplicasBehind(t *testing.T) {
	t.Parallel()
	t.Run("a value that was mended", func(t *testing.T) {
		t.Parallel()
		p := play(t)
		p.generations(1, 2)
		p.key(1, "k", `1`, 5)
		p.key(2, "k", `2`, 5)
		p.at(1, 10)
		p.at(2, 10)
		p.key(2, "k", `1`, 5)
		p.has = behind(6, 5, 2, func(ask directGet) bool { return len(ask.MultiLast) > 0 })
		if keys, counts := compared(t, p, CompareOptions{Keys: []string{"k"}}); len(keys) > 0 || counts.Keys != 1 {
			t.Errorf("%q differ of %d", keys, counts.Keys)
		}
	})
	t.Run("a key that moves on while it is listed", func(t *testing.T) {
		t.Parallel()
		p := play(t)
		p.generations(1, 2)
		p.key(1, "only", `1`, 4)
		p.key(1, "both", `7`, 5)
		p.key(2, "both", `7`, 5)
		p.key(1, "only", `2`, 6)
		p.at(1, 10)
		p.at(2, 10)
		p.page = 1
		p.has = behind(7, 4, 2, func(ask directGet) bool {
			return strings.HasPrefix(ask.NextBySubj, p.keyPrefix(1)) && ask.Seq > 3
		})
		if keys, counts := compared(t, p, CompareOptions{}); !slices.Equal(keys, []string{"only"}) || counts.Keys != 2 {
			t.Errorf("%q differ of %d", keys, counts.Keys)
		}
	})
}

// TestCompareLargeValues: values of which one answer holds a few only are compared a few
// at a time.
func TestCompareLargeValues(t *testing.T) {
	t.Parallel()
	p := play(t)
	p.generations(1, 2)
	for i := range 20 {
		p.key(1, fmt.Sprintf("k%d", i), `1`, 5)
		p.key(2, fmt.Sprintf("k%d", i), strconv.Itoa(1+i/19), 5)
	}
	p.at(1, 10)
	p.at(2, 10)
	p.bytes = 9
	if keys, counts := compared(t, p, CompareOptions{}); !slices.Equal(keys, []string{"k19"}) || counts.Keys != 20 {
		t.Errorf("%q differ of %d", keys, counts.Keys)
	}
}

// TestCompareInvalidKey: no waiting makes it one.
func TestCompareInvalidKey(t *testing.T) {
	t.Parallel()
	p := play(t)
	p.generations(1, 2)
	a, err := NewAdmin(p.nc, p.bucket.store, p.view)
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, err := range a.Compare(t.Context(), 1, 2, CompareOptions{Keys: []string{""}, Wait: natstest.Patience}, nil) {
		if told++; errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it was waited for: %v", err)
		}
		if _, invalid := errors.AsType[*KeyError](err); !invalid {
			t.Error(err)
		}
	}
	if told != 1 {
		t.Errorf("it was told %d times", told)
	}
}
