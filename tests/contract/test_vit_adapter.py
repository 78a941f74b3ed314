"""The generic adapter of vision backbones: the kit on tiny ones."""

from vlmlens_plugins.hf import vit_checks


class TestViT(vit_checks.ViTChecks):
    pass


class TestMAE(vit_checks.MAEChecks):
    pass


class TestBEiT(vit_checks.BEiTChecks):
    pass


class TestDeiT(vit_checks.DeiTChecks):
    pass


class TestDINOv2(vit_checks.DINOv2Checks):
    pass


class TestRegisters(vit_checks.RegistersChecks):
    pass


class TestDINOv3(vit_checks.DINOv3Checks):
    pass


class TestCLIPTower(vit_checks.CLIPTowerChecks):
    pass


class TestSigLIPTower(vit_checks.SigLIPTowerChecks):
    pass


class TestNaFlexTower(vit_checks.NaFlexTowerChecks):
    pass
