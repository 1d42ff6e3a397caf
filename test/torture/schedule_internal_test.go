package main

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestScheduleIsTheSeeds: the seed says which cells there are, in which order and with
// which seeds; another one says otherwise.
func TestScheduleIsTheSeeds(t *testing.T) {
	t.Parallel()
	one, same, other := longCells(7, nil), longCells(7, nil), longCells(8, nil)
	if !reflect.DeepEqual(one, same) {
		t.Error("the same seed is another schedule")
	}
	if len(one) != len(other) || reflect.DeepEqual(one, other) {
		t.Error("another seed is the same schedule")
	}
	seeds := map[uint64]bool{}
	for i := range one {
		c := &one[i]
		if err := c.validate(); err != nil {
			t.Errorf("%s: %v", c, err)
		}
		if seeds[c.Seed] {
			t.Errorf("seed %d stands twice", c.Seed)
		}
		seeds[c.Seed] = true
		if i > 0 && one[i-1].Servers < c.Servers {
			t.Errorf("cell %d: three servers come first", i)
		}
		if c.mayLose() != (!c.Fsync && strings.Contains(c.Nemeses[0], "power")) {
			t.Errorf("%s: may it lose? %v", c, c.mayLose())
		}
	}
}

// TestMatrix: every disturbance, alone and in pairs, meets every workload, alone and
// with the others, whether servers sync or not; on one server, what needs no more.
func TestMatrix(t *testing.T) {
	t.Parallel()
	count := map[string]int{}
	cells := longCells(1, nil)
	for i := range cells {
		count[cells[i].String()[:2]+cells[i].Nemeses[0]]++
	}
	names := pairs()
	for _, n := range nemeses() {
		names = append(names, n.name)
	}
	for _, name := range names {
		n, err := nemesisOf(name)
		if err != nil {
			t.Fatal(err)
		}
		want := 8 // four choices of workloads, with sync and without
		if count["R3"+name] != want {
			t.Errorf("%s on three servers: %d cells", name, count["R3"+name])
		}
		if n.cluster {
			want = 0
		}
		if count["R1"+name] != want {
			t.Errorf("%s on one server: %d cells", name, count["R1"+name])
		}
	}
}

// TestShortCells: they can be run, and meet most disturbances.
func TestShortCells(t *testing.T) {
	t.Parallel()
	met := map[string]bool{}
	cells := shortCells(1)
	for i := range cells {
		if err := cells[i].validate(); err != nil {
			t.Error(err)
		}
		for _, name := range cells[i].Nemeses {
			for one := range strings.SplitSeq(name, "+") {
				met[one] = true
			}
		}
	}
	left := []string{nemNone, "freeze-any", "split-any", "disk-full-all", "power-leader", "restart", nemDamage}
	for _, n := range nemeses() {
		if !met[n.name] && !slices.Contains(left, n.name) {
			t.Errorf("%s is not met", n.name)
		}
	}
}

// TestScenarios: each defect has one, with something to find, that can be run.
func TestScenarios(t *testing.T) {
	t.Parallel()
	met := map[string]bool{}
	all := mutants()
	for i := range all {
		m := &all[i]
		c := m.cell(1)
		if err := c.validate(); err != nil {
			t.Errorf("%s: %v", m.defect, err)
		}
		if met[string(m.defect)] || m.defect == "" || m.finds == "" || m.what == "" {
			t.Errorf("%+v", m)
		}
		met[string(m.defect)] = true
	}
	if len(all) != 22 {
		t.Errorf("%d defects", len(all))
	}
}
