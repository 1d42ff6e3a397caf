package wire

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// touchWithin is how long ago a leader must have heard of a replica for it to count as
// one that follows. They answer its heartbeats, one a second, and elect another one
// after four seconds without any at the earliest.
const touchWithin = 2 * time.Second

// streamInfo is what the stream's leader says of it.
type streamInfo struct {
	Error *APIError `json:"error"`
	State *struct {
		LastSeq uint64 `json:"last_seq"`
	} `json:"state"`
	Cluster *struct {
		Leader   string `json:"leader"`
		Replicas []struct {
			Active time.Duration `json:"active"`
		} `json:"replicas"`
	} `json:"cluster"`
}

// leaderInfo asks for it. Returns an [*APIError] or [ErrNoLeader].
func leaderInfo(ctx context.Context, nc *nats.Conn, stream string) (info streamInfo, err error) {
	msg, err := askAgain(ctx, nc, "$JS.API.STREAM.INFO."+stream, nil)
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(msg.Data, &info); err != nil {
		return info, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	switch {
	case info.Error != nil:
		return info, info.Error
	case info.Cluster != nil && info.Cluster.Leader == "":
		return info, ErrNoLeader
	case info.State == nil:
		return info, fmt.Errorf("%w: neither state nor error", ErrProtocol)
	}
	return info, nil
}

// LeaderEnd returns the sequence of the last message that a stream's leader has
// stored, whether or not it is still there. Returns an [*APIError] or [ErrNoLeader].
func LeaderEnd(ctx context.Context, nc *nats.Conn, stream string) (uint64, error) {
	info, err := leaderInfo(ctx, nc, stream)
	if err != nil {
		return 0, err
	}
	return info.State.LastSeq, nil
}

// LeaderFollowed tells whether whoever answers as the stream's leader is [Followed].
// Errors are those of [LeaderEnd].
func LeaderFollowed(ctx context.Context, nc *nats.Conn, stream string) (bool, error) {
	info, err := leaderInfo(ctx, nc, stream)
	if err != nil || info.Cluster == nil {
		return err == nil, err
	}
	heard := make([]time.Duration, len(info.Cluster.Replicas))
	for i, r := range info.Cluster.Replicas {
		heard[i] = r.Active
	}
	return Followed(heard), nil
}

// Followed tells by how long ago a stream's leader has heard of each of the other
// replicas, 0 for never, whether most of them all follow it. One that was cut off, or
// whose machine stood still, answers what it knew for as long as it does not know that
// it was replaced; what it does not have proves nothing.
func Followed(heard []time.Duration) bool {
	following := 1 // itself
	for _, ago := range heard {
		if ago > 0 && ago <= touchWithin {
			following++
		}
	}
	return 2*following > len(heard)+1
}
