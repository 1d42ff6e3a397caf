package api

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/followers"
)

// by is who the demo says asked: it knows no users.
const by = "the bank's page"

// order is what a client asks of a follower.
type order struct {
	Reason   string `json:"reason"`
	Lane     string `json:"lane"`
	Group    string `json:"group"`
	All      bool   `json:"all"`
	Sequence uint64 `json:"sequence"`
	Whole    bool   `json:"whole"`
}

func (a *API) followerName(r *http.Request) (string, error) {
	name := r.PathValue("name")
	if err := jetstream.ValidateID(name); err != nil {
		return "", malformed("invalid-id", "name: %v", err)
	}
	return name, nil
}

// getFollower says where a follower is, with what waits for a person, grouped by
// failure.
func (a *API) getFollower(w http.ResponseWriter, r *http.Request) error {
	name, err := a.followerName(r)
	if err != nil {
		return err
	}
	s, err := a.followers.Status(r.Context(), name)
	if err != nil {
		return followerProblem(err)
	}
	return answer(w, http.StatusOK, struct {
		followers.Status

		Groups []followers.Group `json:"groups"`
	}{s, followers.GroupLanes(s.Lanes)})
}

// orderFollower pauses, resumes, retries or discards.
func (a *API) orderFollower(w http.ResponseWriter, r *http.Request) error {
	name, err := a.followerName(r)
	if err != nil {
		return err
	}
	var o order
	if err := a.read(w, r, &o); err != nil {
		return err
	}
	lanes := 0
	switch do := r.PathValue("do"); do {
	case followers.DoPause:
		err = a.followers.Pause(r.Context(), name, by, o.Reason)
	case followers.DoResume:
		err = a.followers.Resume(r.Context(), name, by)
	case followers.DoRetry:
		lanes, err = a.followers.Retry(r.Context(), name, followers.Selection{Lane: o.Lane, Group: o.Group, All: o.All}, by)
	case followers.DoDiscard:
		lane := followers.Lane{Lane: o.Lane, Sequence: o.Sequence}
		err = a.followers.Discard(r.Context(), name, lane, o.Whole, by, o.Reason)
	default:
		return &problem{
			Status: http.StatusNotFound, Code: "no-such-route",
			Detail: fmt.Sprintf("a follower takes pause, resume, retry and discard, not %q", clean(do)),
		}
	}
	if err != nil {
		return followerProblem(err)
	}
	return answer(w, http.StatusOK, followers.Reply{Lanes: lanes})
}

// followerProblem is an error as clients get it.
func followerProblem(err error) error {
	switch {
	case errors.Is(err, followers.ErrNeverRan):
		return &problem{Status: http.StatusNotFound, Code: "not-found", Detail: "no such follower"}
	case errors.Is(err, followers.ErrNotRunning):
		return errors.Join(away("no process runs the follower"), err)
	case errors.Is(err, followers.ErrNotWaiting), errors.Is(err, followers.ErrRefused):
		return &problem{Status: http.StatusConflict, Code: "conflict", Detail: "it does not wait for that any more"}
	}
	return err
}
