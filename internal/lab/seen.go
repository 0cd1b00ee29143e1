package lab

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bootlane/internal/pcap"
)

// heard returns what the packet capture shows of a machine's first NIC.
func (l *Lab) heard(m *Machine) (pcap.Client, error) {
	data, err := os.ReadFile(filepath.Join(l.dir, packets))
	if err != nil {
		return pcap.Client{}, fmt.Errorf("read what was on the wire: %w", err)
	}
	c, err := pcap.Read(data)
	if err != nil {
		return pcap.Client{}, fmt.Errorf("read what was on the wire: %w", err)
	}
	all := pcap.Analyse(c).Clients
	i := slices.IndexFunc(all, func(c pcap.Client) bool { return c.MAC == m.MACs[0] })
	if i < 0 {
		return pcap.Client{}, fmt.Errorf("%s said nothing on the wire", m.Name)
	}
	return all[i], nil
}

// fetched expects that firmware asked with an architecture's number, and then fetched the
// file that it was told: by TFTP, whole. EDK2's HTTP Boot asks for the size first, and goes
// on in the same connection, of which the capture has the beginning.
func (l *Lab) fetched(ctx context.Context, m *Machine, arch int, file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("look at the boot loader: %w", err)
	}
	var told string
	err = l.until(ctx, 10*time.Second, m.Name+" fetches "+filepath.Base(file)+" as architecture "+fmt.Sprint(arch), func() (bool, error) {
		c, err := l.heard(m)
		if err != nil {
			return false, nil // tcpdump writes late
		}
		for _, a := range c.Attempts {
			if len(a.Asked) == 0 || !slices.Contains(a.Asked[0].Arch, arch) || path.Base(a.BootFile()) != filepath.Base(file) {
				continue
			}
			for _, f := range a.Fetches {
				name := f.Name[strings.LastIndexByte(f.Name, ' ')+1:]
				if f.Outcome != pcap.Done || !strings.HasSuffix(a.BootFile(), name) || f.Proto == "tftp" && f.Got != info.Size() {
					continue
				}
				told = fmt.Sprintf("%s of %d bytes, and got it: %s", a.BootFile(), info.Size(), f)
				return true, nil
			}
		}
		return false, nil
	})
	if err == nil {
		l.expect(true, "%s asked as architecture %d, was told %s", m.Name, arch, told)
	}
	return err
}
