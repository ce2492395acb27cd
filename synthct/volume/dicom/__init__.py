"""CT series of DICOM, and the structures that SEG and RTSTRUCT files draw on them."""
