package jetstream

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	natsjs "github.com/nats-io/nats.go/jetstream"
)

// DurabilityLevel says what it takes to lose an acknowledged commit. Levels are
// ordered: a higher one loses less. How many servers may lose their disks is not
// among them: that is [Config.Replicas], less a majority.
type DurabilityLevel uint8

// The levels.
const (
	// DurabilityUnknown is when it is not known how the servers sync.
	DurabilityUnknown DurabilityLevel = iota
	// DurabilityMemory loses commits with the server's process.
	DurabilityMemory
	// DurabilitySingleLazy loses commits when the one machine that keeps them loses
	// power: those since it synced its disk last.
	DurabilitySingleLazy
	// DurabilityQuorumLazy loses commits when most machines that keep them lose
	// power at about the same time.
	DurabilityQuorumLazy
	// DurabilityFsynced loses no commit by a loss of power: each server has it on its
	// disk before the acknowledgement that it contributes to.
	DurabilityFsynced
)

//nolint:gochecknoglobals // a constant, which Go has none of this type
var durabilityNames = [...]string{"unknown", "memory", "single-lazy", "quorum-lazy", "fsynced"}

// String is the level's name.
func (l DurabilityLevel) String() string {
	if int(l) < len(durabilityNames) {
		return durabilityNames[l]
	}
	return "durability(" + strconv.Itoa(int(l)) + ")"
}

// ParseDurabilityLevel reads what [DurabilityLevel.String] wrote. Returns an
// [*InvalidError].
func ParseDurabilityLevel(text string) (DurabilityLevel, error) {
	if i := slices.Index(durabilityNames[:], text); i >= 0 {
		return DurabilityLevel(i), nil //nolint:gosec // there are five
	}
	return 0, &InvalidError{
		Field: "durability level", Value: text, Reason: "is none of " + strings.Join(durabilityNames[:], ", "),
	}
}

// MarshalText writes the level's name.
func (l DurabilityLevel) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the level's name as [ParseDurabilityLevel] does.
func (l *DurabilityLevel) UnmarshalText(text []byte) (err error) {
	*l, err = ParseDurabilityLevel(string(text))
	return err
}

// Fsync says when a server syncs its disk: [FsyncAlways], [FsyncUnknown], or the
// interval as text, such as "2m0s".
type Fsync string

// What is not an interval.
const (
	// FsyncAlways is before each acknowledgement, sync_interval: always.
	FsyncAlways Fsync = "always"
	// FsyncUnknown is what a plain client is told.
	FsyncUnknown Fsync = "unknown"
)

// FsyncEvery is a sync in intervals.
func FsyncEvery(d time.Duration) Fsync { return Fsync(d.String()) }

// interval is how much may be lost: 0 for always, the longest there is when it is
// not known.
func (f Fsync) interval() time.Duration {
	switch f {
	case FsyncAlways:
		return 0
	case FsyncUnknown, "":
		return -1
	}
	d, err := time.ParseDuration(string(f))
	if err != nil || d <= 0 {
		return -1
	}
	return d
}

// known tells whether it says something.
func (f Fsync) known() bool { return f.interval() >= 0 }

// Durability is what the servers do for an acknowledged commit, as far as it can be
// known. docs/durability.md says what each setting can still lose.
type Durability struct {
	// Level is what it takes to lose a commit; unknown when it is not known how one
	// of the servers syncs. AtLeast is what is certain even so.
	Level   DurabilityLevel `json:"level"`
	AtLeast DurabilityLevel `json:"atLeast"`
	// Replicas is the number of servers that are to keep the stream, InSync that of
	// those that have all of it now.
	Replicas int `json:"replicas"`
	InSync   int `json:"inSync"`
	// Storage is "file" or "memory", PersistMode "default" or "async".
	Storage     string `json:"storage"`
	PersistMode string `json:"persistMode"`
	// Fsync is that of the server that syncs least often.
	Fsync Fsync `json:"fsync"`
	// ServerVersion is that of the server the connection is to.
	ServerVersion string `json:"serverVersion"`
	// Servers are those that keep the stream, the leader first.
	Servers []ServerDurability `json:"servers"`
	// Problems are the sources that could not be asked, and why.
	Problems []string `json:"problems,omitempty"`
}

// ServerDurability is what one server does.
type ServerDurability struct {
	// Name is the server's name, "" for one that the servers do not name.
	Name   string `json:"name"`
	Leader bool   `json:"leader"`
	// Current tells that it has all of the stream, Offline that it is away.
	Current bool `json:"current"`
	Offline bool `json:"offline"`
	// Lag is the number of operations that it is behind the leader.
	Lag uint64 `json:"lag"`
	// Version is the server's, "" when it is not known.
	Version string `json:"version,omitempty"`
	Fsync   Fsync  `json:"fsync"`
}

// String is the report as one line, for logs.
func (d Durability) String() string {
	text := d.Level.String()
	if d.Level == DurabilityUnknown {
		text += " (at least " + d.AtLeast.String() + ")"
	}
	return fmt.Sprintf("%s: %d of %d replicas in sync, %s storage, fsync %s, nats-server %s",
		text, d.InSync, d.Replicas, d.Storage, d.Fsync, d.ServerVersion)
}

// Durability asks the servers. A plain client learns who keeps the stream, whether
// they are in sync and how they store it, but not when they sync their disks: that
// comes from the sources. Sources that fail are no error; they leave "unknown".
//
// Returns [ErrStoreNotFound], or [ErrUnavailable] when the stream has no leader
// before ctx ends.
func (s *Store) Durability(ctx context.Context, from DurabilitySources) (Durability, error) {
	if err := from.validate(); err != nil {
		return Durability{}, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.timeout)
		defer cancel()
	}
	js, err := natsjs.New(s.nc)
	if err != nil {
		return Durability{}, err
	}
	info, err := findStream(ctx, js, Config{Name: s.name, AttemptTimeout: s.attempt}, false)
	if err != nil {
		return Durability{}, fmt.Errorf("durability of store %q: %w", s.name, err)
	}
	d := Durability{
		Replicas: max(info.Config.Replicas, 1), Storage: strings.ToLower(info.Config.Storage.String()),
		PersistMode: "default", ServerVersion: s.nc.ConnectedServerVersion(),
	}
	if info.Config.PersistMode == natsjs.AsyncPersistMode {
		d.PersistMode = "async"
	}
	d.Servers = serversOf(info, s.nc.ConnectedServerName())
	facts, problems := from.ask(ctx, s.attempt, d.Servers)
	d.Problems = problems
	for i := range d.Servers {
		srv := &d.Servers[i]
		fact := facts[srv.Name]
		srv.Fsync, srv.Version = cmp.Or(fact.fsync, FsyncUnknown), fact.version
		if srv.Name != "" && srv.Name == s.nc.ConnectedServerName() {
			srv.Version = cmp.Or(srv.Version, d.ServerVersion)
		}
		if srv.Current {
			d.InSync++
		}
	}
	judge(&d)
	return d, nil
}

// serversOf are the servers that keep the stream. Those of a server that is in no
// cluster are one, the one that the connection is to.
func serversOf(info *natsjs.StreamInfo, connected string) []ServerDurability {
	c := info.Cluster
	if c == nil || c.Leader == "" && len(c.Replicas) == 0 {
		return []ServerDurability{{Name: connected, Leader: true, Current: true}}
	}
	list := []ServerDurability{{Name: c.Leader, Leader: true, Current: true}}
	for _, r := range c.Replicas {
		list = append(list, ServerDurability{
			Name: r.Name, Current: r.Current && !r.Offline && !r.Pending, Offline: r.Offline, Lag: r.Lag,
		})
	}
	return list
}

// judge draws the levels from the rest.
func judge(d *Durability) {
	d.Fsync = FsyncAlways
	lazy, unknown := false, len(d.Servers) < d.Replicas
	for _, srv := range d.Servers {
		switch {
		case !srv.Fsync.known():
			unknown = true
		case srv.Fsync != FsyncAlways:
			lazy = true
			if srv.Fsync.interval() > d.Fsync.interval() {
				d.Fsync = srv.Fsync
			}
		}
	}
	if unknown {
		d.Fsync = FsyncUnknown
	}
	d.AtLeast = DurabilitySingleLazy
	if d.Replicas > 1 {
		d.AtLeast = DurabilityQuorumLazy
	}
	switch {
	case d.Storage != "file" || d.PersistMode != "default":
		d.Level, d.AtLeast = DurabilityMemory, DurabilityMemory
	case lazy:
		d.Level = d.AtLeast
	case unknown:
		d.Level = DurabilityUnknown
	default:
		d.Level, d.AtLeast = DurabilityFsynced, DurabilityFsynced
	}
}

func (s *Store) requireDurability(ctx context.Context, cfg Config) error {
	d, err := s.Durability(ctx, cfg.DurabilitySources)
	if err != nil {
		return err
	}
	return d.Require(cfg.RequireDurability)
}

// Require returns a [*DurabilityError] unless the level is certain.
func (d Durability) Require(level DurabilityLevel) error {
	if d.AtLeast >= level {
		return nil
	}
	return &DurabilityError{Required: level, Report: d}
}

// DurabilityError is a store whose servers do less for a commit than is required,
// or of which it is not known that they do as much.
type DurabilityError struct {
	// Required is the least level, Report what is known.
	Required DurabilityLevel
	Report   Durability
}

// Error names what is missing, or not known, and what to do.
func (e *DurabilityError) Error() string {
	var missing []string
	d := &e.Report
	if d.Storage != "file" {
		missing = append(missing, "the storage is "+d.Storage)
	}
	if d.PersistMode != "default" {
		missing = append(missing, "the persist mode is "+d.PersistMode)
	}
	if e.Required == DurabilityQuorumLazy && d.Replicas == 1 {
		missing = append(missing, "one server keeps the stream")
	}
	if e.Required >= DurabilityFsynced {
		for _, srv := range d.Servers {
			where := ""
			if srv.Offline {
				where = ", which is offline,"
			}
			switch {
			case !srv.Fsync.known():
				missing = append(missing, fmt.Sprintf("when server %q%s syncs its disk is not known", srv.Name, where))
			case srv.Fsync != FsyncAlways:
				missing = append(missing, fmt.Sprintf("server %q syncs its disk every %s", srv.Name, srv.Fsync))
			}
		}
		if n := d.Replicas - len(d.Servers); n > 0 {
			missing = append(missing, fmt.Sprintf("%d replicas have no server", n))
		}
	}
	text := fmt.Sprintf("durability is %s, required is %s: %s", d.AtLeast, e.Required, strings.Join(missing, "; "))
	if e.Required >= DurabilityFsynced {
		text += " (set sync_interval: always in the jetstream block of each server, and name their monitoring URLs)"
	}
	if len(d.Problems) > 0 {
		text += "; " + strings.Join(d.Problems, "; ")
	}
	return text
}
