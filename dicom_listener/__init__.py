"""Every DICOM byte that crosses the network: acceptor, spool, index of what arrived, sender, and the decoder."""
