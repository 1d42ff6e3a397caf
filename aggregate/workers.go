package aggregate

import (
	"sync"
)

// workers runs tasks: those of one key in the order they came, those of different
// keys in parallel, never more than a bound at once, never more waiting than
// another.
type workers struct {
	slots  chan struct{}
	most   int // waiting or running, in all
	perKey int

	mu     sync.Mutex
	queues map[string][]func()
	count  int
	closed bool
	done   sync.WaitGroup
}

func newWorkers(parallel, most, perKey int) *workers {
	return &workers{slots: make(chan struct{}, parallel), most: most, perKey: perKey, queues: map[string][]func(){}}
}

// submit takes a task, or returns [ErrBusy].
func (w *workers) submit(key string, task func()) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	queue, running := w.queues[key]
	if w.closed || w.count >= w.most || len(queue) >= w.perKey {
		return new(BusyError)
	}
	w.count++
	if running {
		w.queues[key] = append(queue, task)
		return nil
	}
	w.queues[key] = nil
	w.done.Go(func() { w.run(key, task) })
	return nil
}

// run works off one key's tasks and ends with the last.
func (w *workers) run(key string, task func()) {
	for {
		w.slots <- struct{}{}
		task()
		<-w.slots
		w.mu.Lock()
		w.count--
		queue := w.queues[key]
		if len(queue) == 0 {
			delete(w.queues, key)
			w.mu.Unlock()
			return
		}
		task, w.queues[key] = queue[0], queue[1:]
		w.mu.Unlock()
	}
}

// stop refuses new tasks and waits for those taken.
func (w *workers) stop() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.done.Wait()
}
