package cli

import (
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"bootlane/internal/lane"
	"bootlane/internal/pcap"
)

const pcapLong = `Explain a capture of network boots: each machine's conversation, who answered with
what, which offer its firmware takes and by which rule, where the boot stopped, and what
to check next. FILE is pcap or pcapng, of any machine (tcpdump -w, Wireshark,
` + "`bootlane events HOST --pcap`" + `); - is standard input. No server is asked.

Record with: tcpdump -ni any -w boot.pcap 'arp or udp or tcp port 80 or tcp port 8080'

The rules of UEFI firmware are those of EDK2, those of iPXE its own; where they do not
decide, the answer is "cannot tell".`

// maxCapture is how much of a capture is read at once.
const maxCapture = 512 << 20

func (a *app) pcapCmd() *cobra.Command {
	var mac string
	cmd := &cobra.Command{Use: "pcap FILE", Short: "explain a capture of network boots", Long: pcapLong, Args: args(cobra.ExactArgs(1)), RunE: func(_ *cobra.Command, argv []string) error {
		data, err := a.capture(argv[0])
		if err != nil {
			return err
		}
		c, err := pcap.Read(data)
		if err != nil {
			return fmt.Errorf("%s: %w", argv[0], err)
		}
		r := pcap.Analyse(c)
		if mac != "" {
			if r, err = only(r, mac); err != nil {
				return err
			}
		}
		return a.show(r, r.Text)
	}}
	cmd.Flags().StringVar(&mac, "mac", "", "only this machine, by its `MAC`")
	return cmd
}

func (a *app) capture(name string) ([]byte, error) {
	in := a.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read the capture: %w", err)
		}
		defer func() { _ = f.Close() }() // only read from
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxCapture+1))
	if err != nil {
		return nil, fmt.Errorf("read the capture: %w", err)
	}
	if len(data) > maxCapture {
		return nil, lane.Errorf(lane.Invalid, "the capture is larger than %s: cut it down with `tcpdump -r %s -w small.pcap 'port 67 or port 68 or port 69 or port 4011'`", size(maxCapture), name)
	}
	return data, nil
}

// only leaves one client in a report.
func only(r pcap.Report, mac string) (pcap.Report, error) {
	m, err := lane.ParseMAC(mac)
	if err != nil {
		return r, usageError{err}
	}
	var all []lane.MAC
	for _, c := range r.Clients {
		all = append(all, c.MAC)
	}
	i := slices.Index(all, m)
	if i < 0 {
		return r, lane.Errorf(lane.NotFound, "%s asks nothing in this capture; it has %v", m, all)
	}
	r.Clients = r.Clients[i : i+1]
	return r, nil
}
