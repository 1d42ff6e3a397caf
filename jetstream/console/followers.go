package console

import (
	"net/http"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
)

// lanesShown is how many lanes of a group a page gets.
const lanesShown = 20

// parkedGroup is a group of failures with the first of its lanes.
type parkedGroup struct {
	followers.Group

	// Parked counts those that wait for a person.
	Parked int `json:"parked"`
}

// getFollower says where a follower is, with what waits in it, grouped by failure.
func (c *Console) getFollower(r *http.Request) (any, error) {
	name := r.PathValue("name")
	if err := jetstream.ValidateID(name); err != nil {
		return nil, err
	}
	s, err := c.followers.Status(r.Context(), name)
	if err != nil {
		return nil, err
	}
	groups := []parkedGroup{}
	for _, g := range followers.GroupLanes(s.Lanes) {
		p := parkedGroup{Group: g}
		for i := range g.Lanes {
			if g.Lanes[i].Parked {
				p.Parked++
			}
		}
		p.Lanes = p.Lanes[:min(len(p.Lanes), lanesShown)]
		if groups = append(groups, p); len(groups) == pageDefault {
			break
		}
	}
	s.Lanes = nil
	return struct {
		followers.Status

		Groups []parkedGroup `json:"groups"`
	}{s, groups}, nil
}

// order is what a page asks of a follower.
type order struct {
	Reason   string `json:"reason"`
	Lane     string `json:"lane"`
	Group    string `json:"group"`
	All      bool   `json:"all"`
	Sequence uint64 `json:"sequence"`
	Whole    bool   `json:"whole"`
}

func (c *Console) postFollower(r *http.Request) (any, error) {
	var o order
	if err := readBody(r, &o); err != nil {
		return nil, err
	}
	name, do := r.PathValue("name"), r.PathValue("do")
	if err := jetstream.ValidateID(name); err != nil {
		return nil, err
	}
	if err := c.allow(r, do, name); err != nil {
		return nil, err
	}
	ctx, by := r.Context(), c.by(r)
	var reply followers.Reply
	var err error
	switch do {
	case ActionPause:
		err = c.followers.Pause(ctx, name, by, o.Reason)
	case ActionResume:
		err = c.followers.Resume(ctx, name, by)
	case ActionRetry:
		reply.Lanes, err = c.followers.Retry(ctx, name, followers.Selection{Lane: o.Lane, Group: o.Group, All: o.All}, by)
	case ActionDiscard:
		if o.Reason == "" {
			return nil, malformed("reason", "say why it is discarded: nobody will see it again")
		}
		err = c.followers.Discard(ctx, name, followers.Lane{Lane: o.Lane, Sequence: o.Sequence}, o.Whole, by, o.Reason)
	default:
		return nil, missing("a follower takes pause, resume, retry and discard, not %q", clip(do))
	}
	return reply, err
}

func (c *Console) postSwitch(r *http.Request) (any, error) {
	var o struct {
		Option string `json:"option"`
	}
	if err := readBody(r, &o); err != nil {
		return nil, err
	}
	for _, s := range c.cfg.Switches {
		if s.Name != r.PathValue("name") {
			continue
		}
		if err := c.allow(r, ActionFlip, s.Name); err != nil {
			return nil, err
		}
		for _, option := range s.Options {
			if option == o.Option {
				if err := s.Set(r.Context(), option); err != nil {
					return nil, err
				}
				return switchState(s), nil
			}
		}
		return nil, malformed("option", "%q is not one of %q", clip(o.Option), s.Options)
	}
	return nil, missing("no switch is called %q", clip(r.PathValue("name")))
}
