package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/rossby-go/rossby/cmd/demo/internal/servers"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/console"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// runServer is one server of the cluster that --servers starts.
func runServer(ctx context.Context, args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("server is what --servers starts: see --help")
	}
	// Ctrl-C reaches every process of the terminal. This one ends when the demo has.
	ctx, stop := signal.NotifyContext(context.WithoutCancel(ctx), syscall.SIGTERM)
	defer stop()
	return servers.Main(ctx, args[0], os.Stdin, out)
}

type serversConfig struct {
	count         int
	listen, store string
	lazy, secure  bool
	errOut        io.Writer
}

// natsServers are the demo's servers.
type natsServers struct {
	// one is the server in this process, if it is there.
	one      *embedded.Server
	url      string
	switches []console.Switch
	// fsync is how each syncs, by name.
	fsync map[string]jetstream.Fsync
	stop  func() error
}

func startServers(ctx context.Context, cfg serversConfig) (*natsServers, error) {
	fsync := jetstream.FsyncAlways
	if cfg.lazy {
		fsync = jetstream.FsyncEvery(embedded.LazySyncInterval)
	}
	s := &natsServers{fsync: map[string]jetstream.Fsync{}}
	if cfg.count == 1 {
		const name = "rossby-embedded"
		ec := embedded.Config{Listen: cfg.listen, StoreDir: cfg.store, LazySync: cfg.lazy, Name: name}
		if cfg.secure {
			ec.Users = secureUsers()
		}
		srv, err := embedded.Start(ec)
		if err != nil {
			return nil, fmt.Errorf("--nats-listen %s: %w", cfg.listen, err)
		}
		s.one, s.url, s.stop, s.fsync[name] = srv, srv.URL(), srv.Stop, fsync
		s.switches = append(s.switches, oneSwitch(srv))
		return s, nil
	}
	if cfg.secure {
		return nil, errors.New("--servers and --secure: servers with users are alone")
	}
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cluster, err := servers.Start(ctx, servers.Config{
		Executable: path, Args: []string{"server"}, Count: cfg.count, Listen: cfg.listen, StoreDir: cfg.store,
		LazySync: cfg.lazy, Errors: cfg.errOut,
	})
	if err != nil {
		return nil, err
	}
	s.url, s.stop = cluster.URL(), cluster.Stop
	for _, srv := range cluster.Servers {
		s.fsync[srv.Name] = fsync
		s.switches = append(s.switches, serverSwitch(srv))
	}
	return s, nil
}

// The positions of a server's switch.
const (
	serverRuns    = "runs"
	serverStopped = "stopped"
	serverKilled  = "killed"
	serverGroup   = "Servers"
)

func oneSwitch(srv *embedded.Server) console.Switch {
	return console.Switch{
		Name: "server", Group: serverGroup, Title: "The NATS server", Options: []string{serverRuns, serverStopped},
		Help: "There is one, so everything waits while it is away, and goes on when it is back. " +
			"demo --servers 3 has three, any of which can be killed.",
		State: func() (string, string) {
			if srv.IsUp() {
				return serverRuns, ""
			}
			return serverStopped, "nothing can be asked now: what this page shows is from before"
		},
		Set: func(_ context.Context, option string) error {
			if option == serverRuns {
				return srv.Up()
			}
			srv.Down()
			return nil
		},
	}
}

func serverSwitch(srv *servers.Server) console.Switch {
	return console.Switch{
		Name: "server-" + srv.Name, Group: serverGroup, Title: srv.Name,
		Options: []string{serverRuns, serverStopped, serverKilled},
		State: func() (string, string) {
			running, killed, pid := srv.State()
			switch {
			case running:
				return serverRuns, fmt.Sprintf("process %d at %s", pid, strings.TrimPrefix(srv.URL, "nats://"))
			case killed:
				return serverKilled, "its process was killed; what it lacks it gets from the others when it is back"
			}
			return serverStopped, "it was told to end, and handed over what it led"
		},
		Set: func(ctx context.Context, option string) error {
			if option == serverRuns {
				return srv.Start(ctx)
			}
			srv.Kill(option == serverKilled)
			return nil
		},
	}
}
