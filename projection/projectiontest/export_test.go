package projectiontest

import "testing"

// Bubbled is a test that stands for T.
type Bubbled struct {
	testing.TB

	T *testing.T
}

func (b Bubbled) bubble() *testing.T { return b.T }
