package console

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/aggregate/saga"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// sagaReads is how many instances are read at once.
const sagaReads = 8

// Saga lets the console show the steps of a saga's instances, and tell them what to
// do. The zero Saga does nothing.
type Saga struct {
	name          string
	steps         []sagaStep
	inspect       func(ctx context.Context, ids []string) (map[string]progress, error)
	retry, resume func(ctx context.Context, id string) error
	resolve       func(ctx context.Context, id, by string) error
}

// SagaOf shows a saga's instances. The process need not run here.
func SagaOf[D any](p *saga.Process[D]) Saga {
	s := Saga{name: p.Saga().Name(), retry: p.Retry, resolve: p.Resolve, resume: p.Resume}
	for _, step := range p.Saga().Steps() {
		s.steps = append(s.steps, sagaStep{
			Name: step.Name, Timeout: step.Timeout.Seconds(), Undo: step.Undo != nil, Await: step.Await,
		})
	}
	s.inspect = func(ctx context.Context, ids []string) (map[string]progress, error) {
		out := make(map[string]progress, len(ids))
		for in, err := range p.Inspect(ctx, ids...) {
			if err != nil {
				return nil, err
			}
			g := progress{
				Phase: in.Phase, Step: in.Step, Done: in.Done, StepSince: in.Since,
				Attempts: in.Attempts, Parked: in.Parked, Error: in.LastError,
			}
			g.failures(in.Failure, in.StuckOn)
			if !in.Deadline.IsZero() {
				g.Deadline = &in.Deadline
			}
			out[in.ID] = g
		}
		return out, nil
	}
	return s
}

// sagaStep is a step as the saga's definition has it.
type sagaStep struct {
	Name string `json:"name"`
	// Timeout is in seconds, 0 for none.
	Timeout float64 `json:"timeout,omitempty"`
	Undo    bool    `json:"undo"`
	Await   bool    `json:"await,omitempty"`
}

// progress is how far an instance is.
type progress struct {
	Phase     saga.Phase    `json:"phase,omitempty"`
	Step      string        `json:"step,omitempty"`
	Done      []string      `json:"done,omitempty"`
	StepSince time.Time     `json:"stepSince,omitzero"`
	Deadline  *time.Time    `json:"deadline,omitempty"`
	Failure   *saga.Failure `json:"failure,omitempty"`
	StuckOn   *saga.Failure `json:"stuckOn,omitempty"`
	Attempts  int           `json:"attempts,omitempty"`
	Parked    bool          `json:"parked,omitempty"`
	Error     string        `json:"error,omitempty"`
}

func (g *progress) failures(failure, stuckOn saga.Failure) {
	if failure.Code != "" {
		g.Failure = &failure
	}
	if stuckOn.Code != "" {
		g.StuckOn = &stuckOn
	}
}

// instance is a saga's instance in flight.
type instance struct {
	progress

	Saga  string    `json:"saga"`
	ID    string    `json:"id"`
	Since time.Time `json:"since"`
	// Orders tells that it can be told what to do: the application gave the console
	// the saga. Steps are there then, too.
	Orders bool       `json:"orders"`
	Steps  []sagaStep `json:"steps,omitempty"`
}

// getSagas lists the instances in flight, the one that was started first first.
func (c *Console) getSagas(r *http.Request) (any, error) {
	bucket := c.cfg.Store.Name() + "__sagas"
	prefix := "$KV." + bucket + "."
	list, err := page(c, r, "KV_"+bucket, prefix+">", func(m *wire.Message) instance {
		name, key, _ := strings.Cut(strings.TrimPrefix(m.Subject, prefix), ".")
		id, err := base64.RawURLEncoding.DecodeString(key)
		if err != nil {
			id = []byte(key)
		}
		return instance{Saga: name, ID: string(id), Since: m.Time}
	})
	if err != nil {
		return nil, err
	}
	return list, c.progress(r.Context(), list.Items)
}

// progress finds out how far instances are: from the sagas that the application gave,
// for others from the states that travel in their commits.
func (c *Console) progress(ctx context.Context, list []instance) error {
	ids := map[string][]string{}
	for _, i := range list {
		ids[i.Saga] = append(ids[i.Saga], i.ID)
	}
	for name, of := range ids {
		s, known := c.sagas[name]
		var found map[string]progress
		var err error
		if known {
			found, err = s.inspect(ctx, of)
		} else {
			found, err = c.storedProgress(ctx, name, of)
		}
		if err != nil {
			return err
		}
		for i := range list {
			if in := &list[i]; in.Saga == name {
				in.progress, in.Orders, in.Steps = found[in.ID], known, s.steps
			}
		}
	}
	return nil
}

func (c *Console) storedProgress(ctx context.Context, name string, ids []string) (map[string]progress, error) {
	found := make([]progress, len(ids))
	var g errgroup.Group
	g.SetLimit(sagaReads)
	for i, id := range ids {
		g.Go(func() error {
			last, err := c.cfg.Store.Last(ctx, name, id, jetstream.Replica)
			if errors.Is(err, jetstream.ErrNotFound) {
				return nil
			}
			if err != nil || last.State == nil || last.State.KeyRef != "" {
				return err
			}
			var s saga.State[json.RawMessage]
			if json.Unmarshal(readable(last.State.Codec, last.State.Data), &s) == nil { // what is no saga's is not shown
				found[i] = progress{Phase: s.Phase, Step: s.Step, Done: s.Done, StepSince: s.Since}
				found[i].failures(s.Failure, s.StuckOn)
			}
			return nil
		})
	}
	err := g.Wait()
	out := make(map[string]progress, len(ids))
	for i, id := range ids {
		out[id] = found[i]
	}
	return out, err
}

// postSaga tells an instance that waits for a person what to do.
func (c *Console) postSaga(r *http.Request) (any, error) {
	var o struct {
		ID string `json:"id"`
	}
	if err := readBody(r, &o); err != nil {
		return nil, err
	}
	if err := jetstream.ValidateID(o.ID); err != nil {
		return nil, err
	}
	name, do := r.PathValue("saga"), r.PathValue("do")
	s, known := c.sagas[name]
	if !known {
		return nil, missing("the application gave the console no saga %q", clip(name))
	}
	if err := c.allow(r, do, name+"/"+o.ID); err != nil {
		return nil, err
	}
	var err error
	switch do {
	case ActionRetry:
		err = s.retry(r.Context(), o.ID)
	case ActionResolve:
		err = s.resolve(r.Context(), o.ID, c.by(r))
	case ActionResume:
		err = s.resume(r.Context(), o.ID)
	default:
		return nil, missing("a saga takes retry, resolve and resume, not %q", clip(do))
	}
	if err != nil {
		return nil, err
	}
	found, err := s.inspect(r.Context(), []string{o.ID})
	if err != nil {
		return nil, err
	}
	return instance{progress: found[o.ID], Saga: name, ID: o.ID, Orders: true, Steps: s.steps}, nil
}
