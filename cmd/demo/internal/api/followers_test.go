package api_test

import (
	"net/http"
	"testing"

	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/internal/natstest"
)

// The page pauses and resumes what follows the events; what cannot be is told.
func TestFollowersAreAdministered(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	const path = "/api/followers/" + commands.ReactorName
	from, to := b.open(700), b.open(0)
	natstest.Eventually(t, "the reactor runs", func() error {
		if r := b.do(http.MethodGet, path, ""); r.str("state") != "active" || r.str("kind") != "reactor" {
			return &failure{r.text}
		}
		return nil
	})
	b.want(http.StatusOK, http.MethodPost, path+"/pause", `{"reason":"lunch"}`)
	if r := b.want(http.StatusOK, http.MethodGet, path, ""); r.str("state") != "paused" {
		t.Errorf("%s", r.text)
	}
	id := b.want(http.StatusAccepted, http.MethodPost, "/api/transfers", transferOf(from, to, 100)).str("transferId")
	b.want(http.StatusOK, http.MethodPost, path+"/resume", `{}`)
	b.ended(id, "COMPLETED")
	b.want(http.StatusOK, http.MethodPost, path+"/retry", `{"all":true}`)
	b.want(http.StatusConflict, http.MethodPost, path+"/retry", `{"lane":"bank.event.account.1.nobody"}`)
	b.want(http.StatusConflict, http.MethodPost, path+"/discard", `{"lane":"x","sequence":1,"reason":"y"}`)
	b.want(http.StatusBadRequest, http.MethodPost, path+"/discard", `{"lane":"x","sequence":1}`)
	b.want(http.StatusBadRequest, http.MethodPost, path+"/pause", `{"unknown":1}`)
	b.want(http.StatusNotFound, http.MethodPost, path+"/explode", `{}`)
	b.want(http.StatusNotFound, http.MethodGet, "/api/followers/nobody", "")
	b.want(http.StatusBadRequest, http.MethodGet, "/api/followers/a%20b", "")
}

type failure struct{ text string }

func (f *failure) Error() string { return f.text }
