package console

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
)

// How often things are looked at while somebody looks.
const (
	statusEvery   = time.Second
	statusTimeout = 5 * time.Second
	durabilityFor = 10 * time.Second
	statusViews   = 4 // at once
	statusErrors  = 10
)

// info is what does not change.
type info struct {
	Title   string   `json:"title"`
	Store   string   `json:"store"`
	StoreID string   `json:"storeId"`
	Codec   string   `json:"codec"`
	NATS    string   `json:"nats"`
	Actions bool     `json:"actions"`
	States  []string `json:"states"`
	Links   []Link   `json:"links"`
}

func (c *Console) getInfo(*http.Request) (any, error) {
	s := c.cfg.Store
	i := info{
		Title: c.cfg.Title, Store: s.Name(), StoreID: s.ID(), Codec: s.Codec().String(),
		NATS: s.Conn().ConnectedUrlRedacted(), Actions: c.cfg.Actions, States: []string{},
		Links: append([]Link{}, c.cfg.Links...),
	}
	for name := range c.states {
		i.States = append(i.States, name)
	}
	slices.Sort(i.States)
	return i, nil
}

// status is how everything is now.
type status struct {
	Time       time.Time             `json:"time"`
	Connected  bool                  `json:"connected"`
	Head       uint64                `json:"head"`
	Followers  []followers.Status    `json:"followers"`
	Views      []viewStatus          `json:"views"`
	Checks     []checkState          `json:"checks"`
	Switches   []flip                `json:"switches"`
	Durability *jetstream.Durability `json:"durability"`
	// Errors are what could not be found out.
	Errors []string `json:"errors,omitempty"`
}

type checkState struct {
	Result

	Name  string `json:"name"`
	Title string `json:"title"`
	Error string `json:"error,omitempty"`
}

// flip is a switch as it stands.
type flip struct {
	Name    string   `json:"name"`
	Title   string   `json:"title"`
	Help    string   `json:"help,omitempty"`
	Gateway string   `json:"gateway,omitempty"`
	Group   string   `json:"group"`
	Options []string `json:"options"`
	State   string   `json:"state"`
	Note    string   `json:"note,omitempty"`
}

func switchState(s Switch) flip {
	f := flip{
		Name: s.Name, Title: s.Title, Help: s.Help, Gateway: s.Gateway, Options: s.Options,
		Group: cmp.Or(s.Group, "Parts"),
	}
	f.State, f.Note = s.State()
	return f
}

func (c *Console) getStatus(r *http.Request) (any, error) {
	return c.status(r.Context()), nil
}

// status asks everybody at once. What does not answer is told, not waited for.
func (c *Console) status(ctx context.Context) *status {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	s := &status{
		Time: time.Now().UTC(), Connected: c.cfg.Store.Conn().IsConnected(), Followers: []followers.Status{},
		Views: []viewStatus{}, Checks: make([]checkState, len(c.cfg.Checks)), Switches: []flip{},
	}
	defer func() {
		for _, f := range c.cfg.Switches {
			s.Switches = append(s.Switches, switchState(f))
		}
	}()
	if !s.Connected {
		for i, check := range c.cfg.Checks {
			s.Checks[i] = checkState{Name: check.Name, Title: check.Title, Error: "NATS is away"}
		}
		s.Errors = []string{"NATS is away"}
		return s
	}
	var g errgroup.Group
	faults := make([]error, 4+len(c.cfg.Checks))
	ask := func(i int, f func() error) {
		g.Go(func() error {
			faults[i] = f()
			return nil
		})
	}
	ask(0, func() (err error) {
		s.Head, err = c.cfg.Store.LastSequence(ctx)
		return err
	})
	ask(1, func() error { return c.followerStatus(ctx, s) })
	ask(2, func() error { return c.viewStatuses(ctx, s) })
	ask(3, func() error {
		d, err := c.durable.get(ctx, durabilityFor, func(ctx context.Context) (jetstream.Durability, error) {
			return c.cfg.Store.Durability(ctx, c.cfg.DurabilitySources)
		})
		if err == nil {
			s.Durability = &d
		}
		return err
	})
	for i, check := range c.cfg.Checks {
		ask(4+i, func() error {
			s.Checks[i] = checkState{Name: check.Name, Title: check.Title}
			result, err := check.Run(ctx)
			s.Checks[i].Result = result
			if err != nil {
				s.Checks[i].Error = err.Error()
			}
			return nil
		})
	}
	_ = g.Wait()
	for _, err := range faults {
		if err != nil && len(s.Errors) < statusErrors {
			s.Errors = append(s.Errors, err.Error())
		}
	}
	return s
}

func (c *Console) followerStatus(ctx context.Context, s *status) error {
	all, err := c.followers.List(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		all[i].Lanes = nil // see getFollower
	}
	s.Followers = append(s.Followers, all...)
	return nil
}

func (c *Console) viewStatuses(ctx context.Context, s *status) error {
	names, err := c.views(ctx)
	if err != nil {
		return err
	}
	views := make([]viewStatus, len(names))
	var g errgroup.Group
	g.SetLimit(statusViews)
	for i, name := range names {
		g.Go(func() error {
			views[i], _ = c.viewStatus(ctx, name) // which says so itself
			return nil
		})
	}
	_ = g.Wait()
	s.Views = views
	return nil
}
