package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/rossby-go/rossby/internal/codec"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/archive"
)

func (a *app) storeExport() *cobra.Command {
	var cfg archive.Config
	var after, upTo string
	c := a.command("export FILE", "Writes a store's commits into a file",
		"  rossby store export bank.rossby --store bank --compress\n"+
			"  rossby store export a1.rossby --store bank --type account --id a1",
		cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
			var err1, err2 error
			cfg.After, err1 = jetstream.ParsePosition(after)
			cfg.UpTo, err2 = jetstream.ParsePosition(upTo)
			if err := errors.Join(err1, err2, cfg.Validate()); err != nil {
				return err
			}
			store, end, err := a.open(ctx)
			if err != nil {
				return err
			}
			defer end()
			p := a.progress("export")
			defer p.end()
			cfg.Progress = func(n archive.Progress) { p.at(n.Sequence, n.To) }
			done, err := archive.ExportFile(ctx, store, args[0], cfg)
			p.end()
			if ctx.Err() != nil && err != nil {
				a.notef("rossby: %s is not complete: the same command goes on where this one ended", args[0])
			}
			if err != nil {
				return err
			}
			out := exported{File: args[0], Header: done.Header, Summary: done.Summary, Position: done.Position}
			return a.show(out, func(w io.Writer) {
				_, _ = fmt.Fprintf(w, "%s: %s commits, %s, of store %q\n", out.File, number(out.Commits), size(out.Bytes),
					out.Header.Store)
				fields(w, field{"SHA-256", out.SHA256}, field{"Goes on with", "--after " + out.Position.String()})
			})
		})
	c.Long = "Writes a store's commits into a file, byte for byte, with checksums. A file that an interrupted export\n" +
		"has left is completed by the same command; one that is complete is never written over."
	f := c.Flags()
	f.StringVar(&cfg.Type, "type", "", "only aggregates of this `type`")
	f.StringVar(&cfg.ID, "id", "", "only the aggregate with this `id`, with --type")
	f.StringVar(&after, "after", "", "begin after this `position`, where an earlier export ended")
	f.StringVar(&upTo, "up-to", "", "end with this `position`")
	f.BoolVar(&cfg.Compress, "compress", false, "pack with S2")
	return c
}

type exported struct {
	File   string         `json:"file"`
	Header archive.Header `json:"header"`
	archive.Summary

	Position jetstream.Position `json:"position"`
}

func (a *app) storeImport() *cobra.Command {
	var cfg jetstream.Config
	compare := false
	c := a.command("import FILE", "Puts a file's commits into a new store",
		"  rossby store import bank.rossby --store bank-restored --replicas 3 --compare",
		cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
			if cfg.Name = a.store; cfg.Name == "" {
				return &usageError{"import: name the new store with --store", nil}
			}
			file, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer file.Close() //nolint:errcheck // only read
			header, err := readHeader(file)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if cfg.Codec, err = codec.Parse(header.Codec); err != nil {
				return fmt.Errorf("%s: codec: %w", args[0], err)
			}
			nc, end, err := a.connect(ctx)
			if err != nil {
				return err
			}
			defer end()
			return a.importFile(ctx, nc, file, cfg, compare)
		})
	c.Long = "Puts a file's commits into a new store, which is made when it does not exist. Ids, order and bytes stay.\n" +
		"After an interruption the same command goes on. A store that holds anything else is refused."
	f := c.Flags()
	f.IntVar(&cfg.Replicas, "replicas", 0, "`number` of servers that keep the new store")
	f.IntVar(&cfg.Partitions, "partitions", 0, "`number` of partitions of the new store")
	f.BoolVar(&compare, "compare", false, "compare store and file afterwards; exit code 4 when they differ")
	return c
}

// readHeader reads an archive's beginning, and goes back there.
func readHeader(file io.ReadSeeker) (archive.Header, error) {
	r, err := archive.NewReader(file)
	if err != nil {
		return archive.Header{}, err
	}
	_, err = file.Seek(0, io.SeekStart)
	return r.Header(), err
}

func (a *app) importFile(
	ctx context.Context, nc *nats.Conn, file io.ReadSeeker, cfg jetstream.Config, compare bool,
) error {
	opening, cancel := a.short(ctx)
	defer cancel()
	store, err := jetstream.Open(opening, nc, cfg)
	if err != nil {
		return err
	}
	p := a.progress("import")
	defer p.end()
	show := func(n archive.Progress) { p.at(n.Commits+n.Present, 0) }
	done, err := archive.Import(ctx, file, store, archive.ImportConfig{Progress: show})
	p.end()
	if err != nil {
		if ctx.Err() != nil {
			a.notef("rossby: store %q is not complete: the same command goes on where this one ended", cfg.Name)
		}
		return err
	}
	out := struct {
		Store       string   `json:"store"`
		Commits     uint64   `json:"commits"`
		Present     uint64   `json:"present"`
		Bytes       uint64   `json:"bytes"`
		Compared    uint64   `json:"compared,omitempty"`
		Differences []string `json:"differences,omitempty"`
	}{Store: cfg.Name, Commits: done.Commits, Present: done.Present, Bytes: done.Bytes}
	if compare {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return err
		}
		p := a.progress("compare")
		defer p.end()
		report, err := archive.CompareArchive(ctx, file, store, archive.CompareConfig{
			Progress: func(n archive.Progress) { p.at(n.Commits, done.Commits+done.Present) },
		})
		p.end()
		if err != nil {
			return err
		}
		out.Compared = report.Commits
		for _, d := range report.Differences {
			out.Differences = append(out.Differences, d.String())
		}
	}
	err = a.show(out, func(w io.Writer) {
		_, _ = fmt.Fprintf(w, "store %q: %s commits, %s; %s were there\n", out.Store, number(out.Commits), size(out.Bytes),
			number(out.Present))
		if compare {
			_, _ = fmt.Fprintf(w, "%s commits compared: %s differences\n", number(out.Compared), number(len(out.Differences)))
		}
		for _, d := range out.Differences {
			_, _ = fmt.Fprintln(w, oneLine(d))
		}
	})
	if err == nil && len(out.Differences) > 0 {
		err = fmt.Errorf("store %q and the file differ: %w", cfg.Name, errFound)
	}
	return err
}
