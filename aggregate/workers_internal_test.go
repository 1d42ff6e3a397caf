package aggregate

import (
	"errors"
	"testing"
)

// busyTask sends another of its kind before it ends.
type busyTask struct {
	job

	during func()
	done   func()
}

func (t *busyTask) enter() {}

func (t *busyTask) await() { t.during() }

func (t *busyTask) answer() {
	if t.done != nil {
		t.done()
	}
}

// An aggregate that is never idle does not keep others from running.
func TestWorkersAreFair(t *testing.T) {
	t.Parallel()
	const most = 100 * turnMost
	w := newWorkers(1, 1000, 1000)
	served := make(chan struct{})
	other := &busyTask{during: func() {}, done: func() { close(served) }}
	ran, enough := 0, make(chan struct{}) // one at a time: each sends the next
	var again func()
	again = func() {
		select {
		case <-served:
			close(enough)
			return
		default:
		}
		if ran++; ran == 2 {
			if err := w.submit("other", other); err != nil {
				t.Error(err)
			}
		}
		if ran > most {
			close(enough)
			return
		}
		if err := w.submit("busy", &busyTask{during: again}); err != nil {
			t.Error(err)
		}
	}
	if err := w.submit("busy", &busyTask{during: again}); err != nil {
		t.Fatal(err)
	}
	<-enough
	w.stop()
	if ran > most {
		t.Errorf("the other waited for %d", ran)
	}
	if len(w.lines) != 0 || w.count != 0 || w.free != 1 || len(w.ready) != 0 {
		t.Errorf("%+v", w)
	}
	if err := w.submit("busy", other); !errors.Is(err, ErrBusy) {
		t.Error(err)
	}
}
